# Every session of sh and bash; bash reads it for `ssh HOST COMMAND` too, through /etc/bash.bashrc.
# /etc/profile has just set PATH to the system's; the environment's Python comes before it.
case ":$PATH:" in
    *:/opt/devgw/bin:*) ;;
    *) PATH=$HOME/.local/bin:/opt/devgw/bin:$PATH; export PATH ;;
esac
# The environment's locale and time zone, where the user's client has sent none (devgw_environment/sshd.py).
for devgw_default in ${DEVGW_SESSION_DEFAULTS:-}; do
    eval "[ -n \"\${${devgw_default%%=*}+set}\" ]" || export "${devgw_default?}"
done
unset devgw_default
# A person who logs in reads which hosts outside are open, and whom to ask for others: once, and when it has changed.
if [ -t 1 ] && [ ! -e "$HOME/.hushlogin" ] && [ -s /etc/devgw/env/egress_note ]; then
    devgw_seen=${XDG_STATE_HOME:-$HOME/.local/state}/devgw
    if ! cmp -s /etc/devgw/env/egress_note "$devgw_seen/egress_note"; then
        cat /etc/devgw/env/egress_note
        mkdir -p "$devgw_seen" && cp -f /etc/devgw/env/egress_note "$devgw_seen/"
    fi 2>/dev/null
    unset devgw_seen
fi
# That their disk is nearly full, at each login.
if [ -t 1 ] && [ ! -e "$HOME/.hushlogin" ] && [ -s /etc/devgw/env/disk_note ]; then
    cat /etc/devgw/env/disk_note
fi
