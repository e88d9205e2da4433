"""ArcadeDB's server with its Bolt interface, in the place of Neo4j: it takes the
same protocol and the same Cypher. Usage: arcadedb.py PORT PASSWORD DIR"""

import os
import socket
import subprocess
import sys
import time

import arcadedb_embedded

port, password, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
package = os.path.dirname(arcadedb_embedded.__file__)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


port = port or free_port()
settings = {
    "server.rootPassword": password,
    "server.rootPath": directory,
    "server.httpIncomingHost": "127.0.0.1",
    "server.httpIncomingPort": free_port(),
    "server.plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
    "server.defaultDatabases": "neo4j[root]",
    "bolt.host": "127.0.0.1",
    "bolt.port": port,
}
arguments = [os.path.join(package, "jre/bin/java"), "-Xmx256m", "-cp", os.path.join(package, "jars/*")]
arguments += [f"-Darcadedb.{name}={value}" for name, value in settings.items()]
arguments.append("com.arcadedb.server.ArcadeDBServer")


def watch():
    """Says when it listens."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(f"ready {port}", flush=True)
                return
        time.sleep(0.1)


os.chdir(directory)
# The server takes the place of this process: whoever ends that ends it.
if os.fork() == 0:
    watch()
    os._exit(0)
# Its own messages go to the log.
os.dup2(2, 1)
os.execv(arguments[0], arguments)
