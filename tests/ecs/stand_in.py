#!/usr/bin/env python3
"""An AWS endpoint whose ECS services really get tasks, with a program in each.

moto answers the ECS, EC2, ELB and ELBv2 APIs, but never starts the tasks of a service. This runs moto inside its own
process and adds a scheduler that makes the tasks of every service match desiredCount and the current task definition. A
task is a program (container.py) in the network namespace of its host, which outlives this process, as a container does.

Use: stand_in.py PORT --dir DIR --host ADDRESS=NETNS ... --fargate NETNS [--stop-delay SECONDS] [--prefix 10.77.0]

It makes the cluster hello-world-cluster, a VPC, one container instance for each host, the classic load balancer
hello-world-elb (TCP 80), and the network load balancer web-nlb with target groups for its listeners 80, 8443 and
53 (UDP), of which that of 8443 ends connections 3 s after a target is taken out; it writes their ids into
DIR/groups.env. What clients change is recorded in DIR and done again at the next start, and tasks whose programs
still run are taken over: from outside the API was away for a while. It listens when that is done. What happens to tasks
is told to the queue lb-events as EventBridge would.

  POST /stand-in/fault?mode=MODE            ECS answers so from now on: throttle, error, half, hang, slow; none: well again
  POST /stand-in/scale?service=NAME&count=N as UpdateService does, whatever ECS answers
  POST /stand-in/health?of=NAME&says=STATE  what health checks say, of a task or of all tasks of a service
  GET  /stand-in/calls                      requests by operation since the last call
  GET  /stand-in/backends                   what each service has behind it, by the scheduler's own books
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

ACCOUNT, REGION = "123456789012", "us-east-1"
CLUSTER = "hello-world-cluster"
FIRST_HOST_PORT = 32768
FIRST_ENI = 151
TICK = 0.1
SLOW = 3
QUEUE = "lb-events"

os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION=REGION,
                  AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null",
                  AWS_EC2_METADATA_DISABLED="true", no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")

import boto3  # noqa: E402
from moto.ecs import models as ecs_models  # noqa: E402
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends  # noqa: E402
from moto.moto_api import state_manager  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from moto.sqs.models import sqs_backends  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402


def mend_moto(prefix, first_eni):
    """Where moto differs from ECS in what matters here."""
    listed = EC2ContainerServiceBackend.list_tasks

    def list_tasks(self, cluster_str=None, container_instance=None, family=None,
                   started_by=None, service_name=None, desiredStatus=None):
        # moto ignores serviceName, and lists stopped tasks by default.
        tasks = listed(self, cluster_str, container_instance, family, started_by, None, desiredStatus or "RUNNING")
        if service_name:
            tasks = [t for t in tasks if t.group == f"service:{service_name.split('/')[-1]}"]
        return tasks

    EC2ContainerServiceBackend.list_tasks = list_tasks
    ended = EC2ContainerServiceBackend.stop_task

    def stop_task(self, cluster_str, task_str, reason):
        # Its containers are told, and it runs until they have ended; moto has it gone at once.
        cluster = self._get_cluster(cluster_str)
        task = next(t for t in self.tasks[cluster.name].values() if t.id == task_str.split("/")[-1])
        task.desired_status, task.stopped_reason = "STOPPED", reason
        return task

    EC2ContainerServiceBackend.stop_task = stop_task
    EC2ContainerServiceBackend.end_task = ended
    # moto moves a task on by one state at each DescribeTasks.
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
    last = [first_eni - 1]

    def next_ip(*_args, **_kwargs):
        last[0] += 1
        return f"{prefix}.{last[0]}"

    ecs_models.random_private_ip = next_ip


class Programs:
    """The programs of tasks, which outlive this process; what runs is on disk."""

    def __init__(self, folder):
        self.file = folder / "programs.json"
        self.running = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.free = [key for key, kept in self.running.items() if os.path.exists(f"/proc/{kept['pid']}")]

    def taken_over(self, definition):
        """One that still runs, of a task with this definition that this process does not know."""
        for key in self.free:
            if self.running[key]["definition"] == definition:
                self.free.remove(key)
                return self.running.pop(key)
        return None

    def start(self, name, netns, places):
        with open(os.devnull, "rb") as null:
            program = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{netns}", sys.executable, str(Path(__file__).with_name("container.py")),
                 name, ",".join(places)], stdin=null, stdout=subprocess.PIPE, start_new_session=True)
        if program.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the program of {name} does not start at {places}")
        return program.pid

    def keep(self, key, kept):
        self.running[key] = kept
        self.write()

    def stop(self, key):
        kept = self.running.pop(key, None)
        self.write()
        if kept:
            os.kill(kept["pid"], 9)

    def write(self):
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.running))
        new.rename(self.file)


class Scheduler:
    def __init__(self, backend, programs, hosts, fargate, stop_delay):
        self.backend, self.programs = backend, programs
        self.hosts, self.fargate, self.stop_delay = hosts, fargate, stop_delay
        taken = [port for kept in programs.running.values() for port in kept["ports"]]
        self.next_port = max([FIRST_HOST_PORT - 1, *taken]) + 1
        self.stopping = {}  # by task id: when it ends

    def start(self, service, definition):
        fargate = service.launch_type == "FARGATE"
        instances = self.backend.container_instances.get(service.cluster_name, {})
        if instances and not fargate:  # moto fills the first host: make it the last
            first = next(iter(instances))
            instances[first] = instances.pop(first)
        [task] = self.backend.run_task(
            service.cluster_name, service.task_definition.split("/")[-1], 1, None,
            service.deployments[0]["id"], None, "FARGATE" if fargate else None,
            networking_configuration=service.network_configuration or None,
            group=f"service:{service.name}")
        container = task.containers[0]
        mappings = definition.container_definitions[0].get("portMappings", [])
        task.checked = "healthCheck" in definition.container_definitions[0]
        task.health_status = "UNKNOWN"
        task.created_at = datetime.now(timezone.utc)
        kept = None
        if definition.network_mode in (None, "bridge", "host"):
            kept = self.programs.taken_over(definition.arn)
            if kept is None:
                address = self.host_of(task)
                in_host = definition.network_mode == "host"
                ports = [m["containerPort"] if in_host else self.port(m) for m in mappings]
                kept = dict(definition=definition.arn, host=address, ports=ports)
                places = [place(m, "0.0.0.0", port) for m, port in zip(mappings, ports)]
                kept["pid"] = self.programs.start(task.id, self.hosts[address], places)
            # In the host's own network nothing is bound to anything.
            bound = [] if definition.network_mode == "host" else zip(mappings, kept["ports"])
            container.network_bindings = [
                dict(bindIP="0.0.0.0", containerPort=m["containerPort"], hostPort=port,
                     protocol=m.get("protocol", "tcp")) for m, port in bound]
            self.place(task, kept["host"])
        else:
            eni = task.attachments[0]
            address = next(d["value"] for d in eni["details"] if d["name"] == "privateIPv4Address")
            container.network_interfaces = [dict(attachmentId=eni["id"], privateIpv4Address=address)]
            subprocess.run(["ip", "-n", self.fargate, "addr", "add", f"{address}/24", "dev", "eth0"], check=True)
            places = [place(m, address, m["containerPort"]) for m in mappings]
            kept = dict(definition=definition.arn, host=address, ports=[],
                        pid=self.programs.start(task.id, self.fargate, places))
        self.programs.keep(task.id, kept)
        # Only what serves is told.
        container.last_status = task.status = "RUNNING"
        self.tell(task)
        return task

    def tell(self, task):
        detail = dict(clusterArn=task.cluster_arn, taskArn=task.task_arn, group=task.group,
                      lastStatus=task.last_status, desiredStatus=task.desired_status)
        event = {"version": "0", "source": "aws.ecs", "detail-type": "ECS Task State Change", "account": ACCOUNT,
                 "region": REGION, "resources": [task.task_arn], "detail": detail}
        sqs_backends[ACCOUNT][REGION].send_message(QUEUE, json.dumps(event))

    def host_of(self, task):
        instance = task.container_instance_arn.split("/")[-1]
        return self.addresses()[instance]

    def place(self, task, address):
        """On the host that its program is on."""
        by_address = {found: name for name, found in self.addresses().items()}
        head = task.container_instance_arn.rsplit("/", 1)[0]
        task.container_instance_arn = f"{head}/{by_address[address]}"

    def addresses(self):
        ec2 = boto3.client("ec2", endpoint_url=self.private)
        known = {i["InstanceId"]: i["PrivateIpAddress"]
                 for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]}
        instances = self.backend.container_instances[CLUSTER]
        return {name: known[i.ec2_instance_id] for name, i in instances.items()}

    def port(self, mapping):
        host_port = mapping.get("hostPort") or 0
        if not host_port:
            host_port, self.next_port = self.next_port, self.next_port + 1
        return host_port

    def stop(self, task):
        task.desired_status, task.status = "STOPPED", "DEACTIVATING"
        task.stopped_reason = "Scaling activity initiated by deployment"

    def finish_stops(self):
        now = time.monotonic()
        for task in [t for tasks in self.backend.tasks.values() for t in tasks.values()]:
            if task.desired_status != "STOPPED" or task.status == "STOPPED":
                continue
            if task.id not in self.stopping:
                self.stopping[task.id] = now + self.stop_delay
                self.tell(task)
            if self.stopping[task.id] <= now:
                del self.stopping[task.id]
                self.backend.end_task(task.cluster_name, task.id, task.stopped_reason)
                self.programs.stop(task.id)
                self.tell(task)

    def reconcile(self, service):
        if service.network_configuration == {}:
            service.network_configuration = None  # absent, not empty, in the answer
        want = service.desired_count
        if service.scheduling_strategy == "DAEMON":
            want = len(self.backend.container_instances[service.cluster_name])
        if service.status != "ACTIVE":
            want = 0
        definition = self.backend.describe_task_definition(service.task_definition.split("/")[-1])
        deployment = service.deployments[0]
        deployment["taskDefinition"] = definition.arn
        mine = [t for t in self.backend.tasks.get(service.cluster_name, {}).values()
                if t.group == f"service:{service.name}" and t.desired_status == "RUNNING"]
        current = [t for t in mine if t.task_definition_arn == definition.arn]
        old = [t for t in mine if t.task_definition_arn != definition.arn]
        for _ in range(want - len(current)):
            current.append(self.start(service, definition))
        for task in old + current[want:]:
            self.stop(task)
        running = min(want, len(current))
        service.running_count, service.pending_count = running, want - running
        deployment.update(desiredCount=want, runningCount=running, pendingCount=want - running,
                          rolloutState="COMPLETED" if running == want else "IN_PROGRESS")

    def tick(self):
        self.finish_stops()
        for service in list(self.backend.services.values()):
            if service.deployments and service.task_definition:
                self.reconcile(service)

    def serves(self, task):
        well = task.health_status == "HEALTHY" or (task.health_status == "UNKNOWN" and not task.checked)
        return task.desired_status == "RUNNING" and well

    def health(self, of, says):
        for tasks in self.backend.tasks.values():
            for task in tasks.values():
                if of in (task.id, (task.group or "").removeprefix("service:")):
                    task.health_status = says
                    self.tell(task)

    def scale(self, service, count):
        next(s for s in self.backend.services.values() if s.name == service).desired_count = count

    def backends(self):
        """Ready and draining addresses, by service and container port; independent of what the APIs answer."""
        found = {}
        for service in self.backend.services.values():
            for balancer in service.load_balancers:
                port = balancer["containerPort"]
                row = found.setdefault(f"{service.name}:{port}", dict(ready=[], drain=[]))
                for task in self.backend.tasks.get(service.cluster_name, {}).values():
                    kept = self.programs.running.get(task.id)
                    if task.group != f"service:{service.name}" or not kept:
                        continue
                    bindings = getattr(task.containers[0], "network_bindings", None) or []
                    bound = [b["hostPort"] for b in bindings if b["containerPort"] == port]
                    side = row["ready" if self.serves(task) else "drain"]
                    side += [f"{kept['host']}:{p}" for p in (bound if bindings else [port])]
        return {name: {side: sorted(all_) for side, all_ in row.items()} for name, row in found.items()}


def place(mapping, address, port):
    """Where container.py listens."""
    return ("udp:" if mapping.get("protocol") == "udp" else "") + f"{address}:{port}"


def prepare(endpoint, folder, hosts, prefix):
    """What is there before the first client comes."""
    names = ("ecs", "ec2", "elb", "elbv2", "sqs")
    ecs, ec2, elb, nlb, sqs = (boto3.client(name, endpoint_url=endpoint) for name in names)
    sqs.create_queue(QueueName=QUEUE)
    ecs.create_cluster(clusterName=CLUSTER)
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    # moto cannot make an awsvpc network interface without DNS host names.
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f"{prefix}.0/24")["Subnet"]["SubnetId"]
    # deployfish prints the Name tag of the VPC and fails without one.
    ec2.create_tags(Resources=[vpc, subnet], Tags=[dict(Key="Name", Value="stand-in")])
    group = ec2.create_security_group(GroupName="stand-in", Description="stand-in", VpcId=vpc)["GroupId"]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for address in hosts:
        host = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t2.micro",
                                 SubnetId=subnet, PrivateIpAddress=address)["Instances"][0]["InstanceId"]
        ec2.create_tags(Resources=[host], Tags=[dict(Key="Name", Value=address)])
        ecs.register_container_instance(cluster=CLUSTER, instanceIdentityDocument=json.dumps({"instanceId": host}))
    elb.create_load_balancer(LoadBalancerName="hello-world-elb", AvailabilityZones=["us-east-1a"],
                             Listeners=[dict(Protocol="TCP", LoadBalancerPort=80, InstancePort=80)])
    # deployfish reads it; moto has none until it is configured.
    elb.configure_health_check(LoadBalancerName="hello-world-elb", HealthCheck=dict(
        Target="TCP:80", Interval=30, Timeout=5, UnhealthyThreshold=2, HealthyThreshold=2))
    balancer = nlb.create_load_balancer(Name="web-nlb", Subnets=[subnet], Type="network", Scheme="internal")
    balancer = balancer["LoadBalancers"][0]["LoadBalancerArn"]
    lines = [f"ECS_SUBNET={subnet}", f"ECS_SECURITY_GROUP={group}"]
    # What speaks UDP is checked at a port of its own.
    for name, protocol, listener, port, kind, check, ends in (
            ("web", "TCP", 80, 80, "ip", "traffic-port", "false"),
            ("admin", "TCP", 8443, 9000, "ip", "traffic-port", "true"),
            ("dns", "UDP", 53, 5353, "instance", "8054", "false")):
        arn = nlb.create_target_group(
            Name=f"{name}-tg", Protocol=protocol, Port=port, VpcId=vpc, TargetType=kind, HealthCheckProtocol="TCP",
            HealthCheckPort=check)["TargetGroups"][0]["TargetGroupArn"]
        nlb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[
            dict(Key="deregistration_delay.timeout_seconds", Value="3"),
            dict(Key="deregistration_delay.connection_termination.enabled", Value=ends)])
        nlb.create_listener(LoadBalancerArn=balancer, Protocol=protocol, Port=listener,
                            DefaultActions=[dict(Type="forward", TargetGroupArn=arn)])
        lines.append(f"ECS_{name.upper()}_GROUP={arn}")
    (folder / "groups.env").write_text("\n".join(lines) + "\n")


class Front:
    """What clients talk to: records, counts, and fails when told to."""

    RECORDED = ("RegisterTaskDefinition", "CreateService", "UpdateService", "DeleteService", "TagResource",
                "UntagResource")

    def __init__(self, app, scheduler, record):
        self.app, self.scheduler, self.record = app, scheduler, record
        self.calls, self.fault, self.lock = Counter(), "none", threading.Lock()

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO", "")
        if path.startswith("/stand-in/"):
            return self.control(path, environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        operation = target.split(".")[-1] or dict(urllib.parse.parse_qsl(body.decode())).get("Action", path)
        with self.lock:
            self.calls[operation] += 1
        if "AmazonEC2ContainerService" in target and self.fault == "slow":
            time.sleep(SLOW)
        elif "AmazonEC2ContainerService" in target and self.fault != "none":
            return self.fail(start_response)
        if operation in self.RECORDED:
            with self.lock, open(self.record, "a", encoding="utf-8") as out:
                out.write(json.dumps([target, environ["HTTP_AUTHORIZATION"], body.decode()]) + "\n")
        import io
        environ["wsgi.input"] = io.BytesIO(body)
        return self.app(environ, start_response)

    def fail(self, start_response):
        kind = [("Content-Type", "application/x-amz-json-1.1")]
        if self.fault == "throttle":
            start_response("400 Bad Request", kind)
            return [b'{"__type":"ThrottlingException","message":"Rate exceeded"}']
        if self.fault == "error":
            start_response("500 Internal Server Error", kind)
            return [b'{"__type":"ServerException","message":"Service Unavailable"}']
        if self.fault == "half":
            start_response("200 OK", kind)
            return [b'{"taskArns":["arn:aws:ecs:us-east-1:123456789012:task/hello-wor']
        while self.fault == "hang":
            time.sleep(0.1)
        start_response("503 Service Unavailable", kind)
        return [b"{}"]

    def control(self, path, environ, start_response):
        words = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", "")))
        answer = {}
        if path == "/stand-in/fault":
            self.fault = words["mode"]
        elif path == "/stand-in/scale":
            self.scheduler.scale(words["service"], int(words["count"]))
        elif path == "/stand-in/health":
            self.scheduler.health(words["of"], words["says"])
        elif path == "/stand-in/calls":
            with self.lock:
                answer, self.calls = dict(self.calls), Counter()
        elif path == "/stand-in/backends":
            answer = self.scheduler.backends()
        body = json.dumps(answer).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_args, **_kwargs):
        pass


def serve(app, port):
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def replay(endpoint, record):
    if not record.exists():
        return
    for line in record.read_text().splitlines():
        target, authorization, body = json.loads(line)
        request = urllib.request.Request(endpoint, body.encode(), headers={
            "X-Amz-Target": target, "Authorization": authorization, "Content-Type": "application/x-amz-json-1.1"})
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()


def main():
    parser = argparse.ArgumentParser(description="moto with an ECS service scheduler")
    parser.add_argument("port", type=int)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--host", action="append", default=[])
    parser.add_argument("--fargate", required=True)
    parser.add_argument("--stop-delay", type=float, default=0)
    parser.add_argument("--prefix", default="10.77.0")
    flags = parser.parse_args()
    hosts = dict(host.split("=", 1) for host in flags.host)
    mend_moto(flags.prefix, FIRST_ENI)
    app = DomainDispatcherApplication(create_backend_app)
    private = f"http://127.0.0.1:{serve(app, 0)}"
    prepare(private, flags.dir, hosts, flags.prefix)
    record = flags.dir / "record.jsonl"
    replay(private, record)
    scheduler = Scheduler(ecs_backends[ACCOUNT][REGION], Programs(flags.dir), hosts, flags.fargate, flags.stop_delay)
    scheduler.private = private
    scheduler.tick()
    serve(Front(app, scheduler, record), flags.port)
    print("ready", flush=True)
    while True:
        time.sleep(TICK)
        try:
            scheduler.tick()
        except Exception:
            traceback.print_exc()


if __name__ == "__main__":
    main()
