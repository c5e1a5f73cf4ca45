#!/bin/sh
# Make /brought: what people bring along from their own machines, so that it means the same here: locales and terminals;
# and a font with Chinese, Japanese and Korean letters, for plots.
set -eu
export DEBIAN_FRONTEND=noninteractive
if [ -s /build/ca-bundle.pem ]; then
    apt_options="-o Acquire::https::CAInfo=/build/ca-bundle.pem"
fi
# shellcheck disable=SC2086 # options are words
apt-get ${apt_options:-} update -q
# shellcheck disable=SC2086
apt-get ${apt_options:-} install -q -y --no-install-recommends \
    fonts-wqy-microhei foot-terminfo kitty-terminfo locales ncurses-term

mkdir -p /brought/usr/lib/locale /brought/usr/share/fonts/truetype
cp -a /usr/share/fonts/truetype/wqy /brought/usr/share/fonts/truetype/
cp -a /usr/share/terminfo /brought/usr/share/
sh /build/terminal_types.sh

# All UTF-8, a tenth of `locales-all`; C.UTF-8 is the system's own.
names="ar_SA cs_CZ da_DK de_AT de_CH de_DE el_GR en_AU en_CA en_GB en_IE en_IN en_US es_ES es_MX fi_FI fr_BE fr_CA fr_CH
    fr_FR he_IL hi_IN hu_HU id_ID it_IT ja_JP ko_KR nb_NO nl_BE nl_NL pl_PL pt_BR pt_PT ro_RO ru_RU sv_SE th_TH tr_TR
    uk_UA vi_VN zh_CN zh_TW"
mkdir /tmp/made
# shellcheck disable=SC2086
printf '%s\n' $names | xargs -P "$(nproc)" -I NAME localedef --no-archive -i NAME -f UTF-8 /tmp/made/NAME.UTF-8
# macOS sends LC_CTYPE=UTF-8, a name of its own: the letters of all languages, and else as C.
localedef --no-archive -c -i C -f UTF-8 /tmp/made/UTF-8
for made in /tmp/made/*; do
    localedef --prefix=/brought --add-to-archive "$made" >/dev/null
done
localedef --prefix=/brought --list-archive
