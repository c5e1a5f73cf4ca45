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
# The variables of the workspace's project (devgw-project), made by this user.
if [ -z "${DEVGW_NO_PROJECT:-}" ] && [ -f "$HOME/.local/state/devgw/project/variables.sh" ]; then
    . "$HOME/.local/state/devgw/project/variables.sh"
fi
# A person who logs in reads which hosts outside are open and whom to ask for others, and what of their project's file is
# left out: once, and when it has changed.
for devgw_note in /etc/devgw/env/egress_note "$HOME/.local/state/devgw/project/project_news"; do
    if [ -t 1 ] && [ ! -e "$HOME/.hushlogin" ] && [ -s "$devgw_note" ]; then
        devgw_seen=${XDG_STATE_HOME:-$HOME/.local/state}/devgw/${devgw_note##*/}
        if ! cmp -s "$devgw_note" "$devgw_seen"; then
            cat "$devgw_note"
            mkdir -p "${devgw_seen%/*}" && cp -f "$devgw_note" "$devgw_seen"
        fi 2>/dev/null
    fi
done
# That their disk is nearly full, and that their project's commands run or failed, at each login.
for devgw_note in /etc/devgw/env/disk_note "$HOME/.local/state/devgw/project/note"; do
    if [ -t 1 ] && [ ! -e "$HOME/.hushlogin" ] && [ -s "$devgw_note" ]; then
        cat "$devgw_note"
    fi
done
unset devgw_note devgw_seen
