# bash(1), interactive or started by sshd for a command.
. /etc/profile.d/devgw.sh
[ -z "${PS1:-}" ] || { shopt -s checkwinsize; PS1='\u@\h:\w\$ '; }
