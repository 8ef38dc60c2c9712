#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The minimum of FTP that a conntrack helper needs to see.

  ftp.py serve ADDR            a server with one file
  ftp.py get ADDR active|passive
                               fetches it; prints "got=N", in bytes
"""

import ftplib
import os
import socket
import sys

FILE = bytes(200000)


def session(conn):
    lines = conn.makefile("rw", newline="\r\n", encoding="ascii")
    data = None

    def say(text):
        lines.write(text + "\n")
        lines.flush()

    say("220 ready")
    for line in lines:
        verb, _, argument = line.strip().partition(" ")
        verb = verb.upper()
        if verb == "PASV":
            listener = socket.socket()
            listener.bind((conn.getsockname()[0], 0))
            listener.listen(1)
            addr, port = listener.getsockname()
            say(f"227 Entering Passive Mode ({addr.replace('.', ',')},{port >> 8},{port & 255})")
            data = listener
        elif verb == "PORT":
            parts = argument.split(",")
            data = (".".join(parts[:4]), int(parts[4]) << 8 | int(parts[5]))
            say("200 ok")
        elif verb == "RETR":
            say("150 here it comes")
            if isinstance(data, tuple):
                out = socket.create_connection(data, source_address=(conn.getsockname()[0], 20))
            else:
                out, _ = data.accept()
                data.close()
            out.sendall(FILE)
            out.close()
            say("226 done")
        elif verb == "QUIT":
            say("221 bye")
            return
        else:
            say("200 ok")


def serve(addr):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((addr, 21))
    sock.listen(4)
    while True:
        conn, _ = sock.accept()
        if os.fork() == 0:
            session(conn)
            os._exit(0)
        conn.close()


def get(addr, mode):
    got = []
    with ftplib.FTP(addr, timeout=20) as ftp:
        ftp.login()
        ftp.set_pasv(mode == "passive")
        ftp.retrbinary("RETR file", got.append)
    print(f"got={sum(map(len, got))}")


if __name__ == "__main__":
    {"serve": serve, "get": get}[sys.argv[1]](*sys.argv[2:])
