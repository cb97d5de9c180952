#!/usr/bin/env python3
"""What runs in a task of the stand-in cluster: writes its name, then echoes, on each of its ports. A datagram is
answered with its name.

Use: container.py NAME [udp:]ADDRESS:PORT[,[udp:]ADDRESS:PORT...]

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


def answer(listener, name):
    while True:
        _, client = listener.recvfrom(16384)
        listener.sendto(name.encode(), client)


def main():
    name, places = sys.argv[1], sys.argv[2].split(",")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for place in places:
        address, port = place.removeprefix("udp:").rsplit(":", 1)
        if place.startswith("udp:"):
            serves, listener = answer, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind((address, int(port)))
        else:
            serves, listener = accept, socket.create_server((address, int(port)), backlog=256)
        threading.Thread(target=serves, args=(listener, name), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
