# Login shells: /etc/profile has just set PATH to the system's; the environment's Python comes before it.
case ":$PATH:" in
    *:/opt/devgw/bin:*) ;;
    *) PATH=$HOME/.local/bin:/opt/devgw/bin:$PATH; export PATH ;;
esac
