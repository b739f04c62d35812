"""A Ray cluster of several nodes on this machine, with the service on it; run as a program.

Nodes are real: processes of their own, that share nothing but the loopback interface. One holds
Serve's controller and its HTTP proxy, each of the others an ingress and an encoder replica.

Commands arrive on standard input, one a line; each is answered by one line on standard output:
``kill Encoder``, ``kill Ingress`` (one replica), ``kill node`` (with all that runs on it),
``add node``, ``replicas`` (how many of each are running), ``stop``.
"""

import json
import logging
import os
import sys
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# A node is given up after three seconds of silence instead of after many more.
os.environ.update(
    RAY_health_check_period_ms="1000",
    RAY_health_check_timeout_ms="1000",
    RAY_health_check_failure_threshold="3",
)

import ray
from ray import serve
from ray.cluster_utils import Cluster

NODES = 2
OBJECT_STORE = 100 * 1024 * 1024


def main(port: int) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        },
    )
    for _ in range(NODES):
        add_node(cluster)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    start_service()
    say(address=cluster.address)
    for line in sys.stdin:
        match line.split():
            case ["kill", "node"]:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                say()
            case ["kill", deployment]:
                name = replicas(deployment)[0]
                ray.kill(ray.get_actor(name, namespace="serve"))
                say(killed=name)
            case ["add", "node"]:
                add_node(cluster)
                say()
            case ["replicas"]:
                say(**{name: len(replicas(name)) for name in ("Ingress", "Encoder")})
            case ["stop"]:
                break
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    say()


def add_node(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=4, object_store_memory=OBJECT_STORE)


def start_service() -> None:
    from entrypoints.ray.serving import Encoder, Ingress

    each: dict[str, Any] = {
        "num_replicas": NODES,
        "max_replicas_per_node": 1,
        "health_check_period_s": 1,
        "health_check_timeout_s": 5,
    }
    encoder = Encoder.options(**each)
    ingress = Ingress.options(**each, graceful_shutdown_wait_loop_s=0.2)
    serve.run(ingress.bind(encoder.bind()), name="clip")


def replicas(deployment: str) -> list[str]:
    """Names of the deployment's replica actors."""
    return [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if f"#{deployment}#" in actor["name"]
    ]


def say(**what: Any) -> None:
    ANSWERS.write(json.dumps(what) + "\n")
    ANSWERS.flush()


if __name__ == "__main__":
    # Ray's processes write to standard output too, so the results go to a separate stream.
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(int(sys.argv[1]))
