"""Keep a process's connections on this machine."""

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def refuse_far_connections(event: str, args: tuple[object, ...]) -> None:
    """Let a socket connect to this machine only; for `sys.addaudithook`."""
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in LOOPBACK:
        message = f"tests reach nothing but this machine: {args[1]}"
        raise ConnectionRefusedError(message)
