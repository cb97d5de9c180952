#!/usr/bin/env python3
"""What runs in a task of the stand-in cluster: writes its name, then echoes, on each of its ports.

Use: container.py NAME ADDRESS:PORT[,ADDRESS:PORT...]

Each connection is served by a thread of its own. On SIGTERM it goes on, as a container does that drains; SIGKILL ends it.
"""
import signal
import socket
import sys
import threading


def serve(stream, name):
    with stream:
        try:
            stream.sendall(name.encode() + b"\n")
            while data := stream.recv(16384):
                stream.sendall(data)
        except OSError:
            pass


def accept(listener, name):
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve, args=(stream, name), daemon=True).start()


def main():
    name, places = sys.argv[1], sys.argv[2].split(",")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for place in places:
        address, port = place.rsplit(":", 1)
        listener = socket.create_server((address, int(port)), backlog=256)
        threading.Thread(target=accept, args=(listener, name), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
