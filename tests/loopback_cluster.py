"""A Kubernetes API on 127.0.0.1: real TLS and HTTP, objects in memory. No cluster was ever there.

It has discovery, get, list, watch, server-side apply with owners of fields, status subresources,
definitions of custom resources by whose schemas it judges, tokens and client certificates, roles,
and faults to order.
It has no controllers, admission, CEL or protobuf.
"""

import base64
import copy
import json
import re
import ssl
import threading
import uuid
from datetime import datetime, timedelta, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

import applied_fields
import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Megabytes of JSON for each judgment otherwise.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
KINDS = [  # group, version, plural, kind, namespaced, has a status subresource
    ("", "v1", "namespaces", "Namespace", False, True),
    ("", "v1", "secrets", "Secret", True, False),
    ("", "v1", "configmaps", "ConfigMap", True, False),
    ("", "v1", "serviceaccounts", "ServiceAccount", True, False),
    ("apps", "v1", "daemonsets", "DaemonSet", True, True),
    ("apps", "v1", "deployments", "Deployment", True, True),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", True, False),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, False),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, False),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        True,
    ),
]
PATH = re.compile(r"/(?:api/(?P<core>v1)|apis/(?P<g>[^/]+)/(?P<v>[^/]+))(?P<rest>/.*)?")


class AnswerError(Exception):
    """An answer that is no object, as a Status."""

    def __init__(self, code, reason, message):
        super().__init__(message)
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message, "reason": reason, "code": code}  # fmt: skip


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Authority:
    """A certificate authority, and what it signs."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
        self.pem = self._signed("loopback", self.key, ca=True)

    def pair(self, name, hosts=()):
        """Return certificate and key of a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())  # fmt: skip
        return self._signed(name, key, hosts), pem

    def _signed(self, name, key, hosts=(), ca=False):
        begin = datetime.now(timezone.utc) - timedelta(hours=1)
        build = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin).not_valid_after(begin + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )  # fmt: skip
        if hosts:
            names = [
                x509.DNSName(one) if one[0].isalpha() else x509.IPAddress(ip_address(one))
                for one in hosts
            ]
            build = build.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return build.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class LoopbackCluster:
    """One cluster.

    Attributes:
        users: token -> user; roles: user -> rules (as of a Role), None: may do all.
        fault: is called with the handler before anything else; returns True if it has answered.
        requests: (method, path with query, user) of all that came.
    """

    def __init__(self, folder, hosts=("127.0.0.1", "localhost"), served_after=0):
        self.authority, self.kinds, self.schemas = Authority(), list(KINDS), {}
        self.users, self.roles = {"admin-token": "admin"}, {"admin": None}
        self.objects, self.owners, self.events, self.requests = {}, {}, [], []
        self.revision, self.oldest, self.changed = 100, 0, threading.Condition()
        self.fault, self.served_after, self.stopping = None, served_after, False
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def log_message(self, *arguments):
                pass

            def answer(self):
                cluster._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                plain, address = super().get_request()
                return tls.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                ), address

            def handle_error(self, request, address):
                pass  # clients that do not trust it, or go away

        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.verify_mode = ssl.CERT_OPTIONAL
        tls.load_verify_locations(cadata=self.authority.pem.decode())
        pair = folder / f"server-{uuid.uuid4().hex}.pem"
        pair.write_bytes(b"".join(self.authority.pair("server", hosts)))
        tls.load_cert_chain(pair)
        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def put(self, obj, manager="kubectl"):
        """Put an object without any check; its fields are the manager's."""
        group, _, version = obj["apiVersion"].rpartition("/")
        kind = next(
            one for one in self.kinds if (one[0], one[1], one[3]) == (group, version, obj["kind"])
        )
        meta = obj["metadata"]
        key = (kind[2], meta.get("namespace", "") if kind[4] else "", meta["name"])
        self.owners[key] = {
            manager: {p for p in applied_fields.flatten(obj) if p not in applied_fields.IDENTITY}
        }
        return self._store(key, copy.deepcopy(obj))

    def get(self, plural, namespace, name):
        return self.objects.get((plural, namespace, name))

    def delete(self, plural, namespace, name):
        self._store((plural, namespace, name), self.objects[plural, namespace, name], "DELETED")

    def set_status(self, plural, namespace, name, status):
        """As a controller of the cluster's own would."""
        key = (plural, namespace, name)
        self._store(key, {**self.objects[key], "status": status})

    def compact(self):
        """Forget what was: a watch from an earlier version is too old."""
        self.oldest = self.revision

    def _store(self, key, obj, event=None):
        with self.changed:
            self.revision += 1
            before = self.objects.get(key)
            meta = obj["metadata"] = dict(obj["metadata"])
            meta.setdefault("uid", str(uuid.uuid4()))
            meta.setdefault("creationTimestamp", now())
            changed = before is None or before.get("spec") != obj.get("spec")
            meta["generation"] = (before["metadata"]["generation"] if before else 0) + changed
            meta["resourceVersion"] = str(self.revision)
            if event == "DELETED":
                self.objects.pop(key, None)
                self.owners.pop(key, None)
            else:
                self.objects[key] = obj
            kind = event or ("ADDED" if before is None else "MODIFIED")
            self.events.append((self.revision, key, kind, copy.deepcopy(obj)))
            self.changed.notify_all()
        if key[0] == "customresourcedefinitions" and event != "DELETED":
            self._define(key, obj)
        return obj

    def _define(self, key, obj):
        spec = obj["spec"]
        version = spec["versions"][0]
        names, has_status = spec["names"], "status" in version.get("subresources", {})
        place = spec["group"], version["name"], names["plural"], names["kind"]
        kind = (*place, spec["scope"] == "Namespaced", has_status)
        if kind in self.kinds:
            return

        def serve():
            self.kinds.append(kind)
            self.schemas[kind[3]] = version["schema"]["openAPIV3Schema"]
            status = {"conditions": [{"type": "Established", "status": "True"}]}
            self._store(key, {**self.objects[key], "status": status})

        threading.Timer(self.served_after, serve).start() if self.served_after else serve()

    # One request

    def _handle(self, http):
        url = urlsplit(http.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        try:
            user = self._user(http)
            self.requests.append((http.command, http.path, user))
            if self.fault and self.fault(http):
                return
            answer = self._route(http, url.path.rstrip("/"), query, body, user)
            if answer is not None:
                self.send(http, 200, answer)
        except AnswerError as answer:
            self.send(http, answer.status["code"], answer.status)
        except (OSError, ssl.SSLError):
            http.close_connection = True

    @staticmethod
    def send(http, code, content, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        http.send_response(code)
        for name, value in headers:
            http.send_header(name, value)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(data)))
        http.end_headers()
        http.wfile.write(data)

    def _user(self, http):
        peer = http.connection.getpeercert()
        if peer:
            return dict(part[0] for part in peer["subject"])["commonName"]
        token = (http.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in self.users:
            raise AnswerError(401, "Unauthorized", "Unauthorized")
        return self.users[token]

    def _require(self, user, verb, group, resource, name):
        rules = self.roles.get(user, [])
        for rule in rules or ():
            known = verb in rule["verbs"] and group in rule["apiGroups"]
            named = resource in rule["resources"] and name in rule.get("resourceNames", [name])
            if known and named:
                return
        if rules is not None:
            words = f'User "{user}" cannot {verb} resource "{resource}" in API group "{group}"'
            raise AnswerError(403, "Forbidden", f"{resource} is forbidden: {words}")

    def _route(self, http, path, query, body, user):  # noqa: C901
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.0+loopback"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = {one[0]: {"groupVersion": f"{one[0]}/{one[1]}", "version": one[1]}
                        for one in self.kinds if one[0]}  # fmt: skip
            groups = [{"name": name, "versions": [one], "preferredVersion": one}
                      for name, one in versions.items()]  # fmt: skip
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        match = PATH.fullmatch(path)
        if not match:
            raise AnswerError(404, "NotFound", "the server could not find the requested resource")
        group, version = match["g"] or "", match["v"] or match["core"]
        rest = [part for part in (match["rest"] or "").split("/") if part]
        if not rest:
            return self._discovery(group, version)
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind = next((one for one in self.kinds if one[:3] == (group, version, rest[0])), None)
        if kind is None:
            raise AnswerError(404, "NotFound", "the server could not find the requested resource")
        name, sub = ([*rest[1:], "", ""])[:2]
        resource = f"{kind[2]}/{sub}" if sub else kind[2]
        verbs = {
            "GET": "get" if name else "watch" if "watch" in query else "list",
            "PATCH": "patch",
        }
        self._require(user, verbs.get(http.command, http.command), group, resource, name)
        if http.command == "GET" and "watch" in query:
            return self._watch(http, kind, namespace, query)
        if http.command == "GET" and not name:
            items = [obj for key, obj in self.objects.items()
                     if key[0] == kind[2] and namespace in ("", key[1])]  # fmt: skip
            return {"kind": f"{kind[3]}List", "apiVersion": f"{group}/{version}".lstrip("/"),
                    "items": items,
                    "metadata": {"resourceVersion": str(self.revision)}}  # fmt: skip
        key = (kind[2], namespace, name)
        if http.command == "GET":
            if key not in self.objects:
                raise AnswerError(404, "NotFound", f'{kind[2]} "{name}" not found')
            return self._shown(key)
        if http.command == "PATCH":
            return self._apply(key, kind, sub, query, body, user)
        raise AnswerError(405, "MethodNotAllowed", "the server does not allow this method")

    def _shown(self, key):
        obj, owners = copy.deepcopy(self.objects[key]), self.owners.get(key, {})
        obj["metadata"]["managedFields"] = [
            {"manager": name, "operation": "Apply"} for name in owners
        ]
        return obj

    def _discovery(self, group, version):
        found = [one for one in self.kinds if one[:2] == (group, version)]
        if not found:
            raise AnswerError(404, "NotFound", "the server could not find the requested resource")
        resources = [
            {
                "name": one[2],
                "kind": one[3],
                "namespaced": one[4],
                "verbs": ["get", "list", "patch"],
            }
            for one in found
        ]
        resources += [{**one, "name": f"{one['name']}/status"} for one in resources]
        return {
            "kind": "APIResourceList",
            "groupVersion": f"{group}/{version}",
            "resources": resources,
        }

    def _apply(self, key, kind, sub, query, body, user):
        wanted, manager = yaml.safe_load(body), query.get("fieldManager")
        if not manager:
            raise AnswerError(422, "Invalid", "fieldManager is required for apply patch")
        if kind[4] and ("namespaces", "", key[1]) not in self.objects:
            raise AnswerError(404, "NotFound", f'namespaces "{key[1]}" not found')
        before = self.objects.get(key)
        if before is None:
            if sub:
                raise AnswerError(404, "NotFound", f'{kind[2]} "{key[2]}" not found')
            self._require(user, "create", kind[0], kind[2], key[2])
        uid = wanted["metadata"].pop("uid", None)
        if uid and (before or {}).get("metadata", {}).get("uid") != uid:
            raise AnswerError(409, "Conflict", "Precondition failed: UID in precondition differs")
        manager = f"{manager} ({sub})" if sub else manager
        if kind[5]:
            always = ("apiVersion", "kind", "metadata")
            wanted = {
                n: v for n, v in wanted.items() if n in always or (n == "status") == bool(sub)
            }
        try:
            merged, owners = applied_fields.apply(
                before, self.owners.get(key, {}), manager, wanted, query.get("force") == "true"
            )
        except applied_fields.ConflictError as conflict:
            raise AnswerError(409, "Conflict", str(conflict)) from None
        self._judge(merged, kind, key)
        if query.get("dryRun") == "All":
            return merged
        self.owners[key] = owners
        if before is None or merged != before:
            self._store(key, merged)
        return self._shown(key)

    def _judge(self, obj, kind, key):
        """Fill defaults in and refuse what the schema does not have."""
        subject = f'{kind[3]} "{key[2]}" is invalid'
        if schema := self.schemas.get(kind[3]):
            for name, field in schema["properties"]["spec"]["properties"].items():
                if "default" in field:
                    obj.get("spec", {}).setdefault(name, field["default"])
            plain = {n: v for n, v in obj.items() if n != "metadata"}
            try:
                jsonschema.validate(plain, closed(schema))
            except jsonschema.ValidationError as error:
                field = ".".join(map(str, error.absolute_path))
                if error.validator == "additionalProperties":  # as the real one has it
                    raise AnswerError(
                        500, "InternalError", f".{field}.x: field not declared in schema"
                    ) from None
                raise AnswerError(422, "Invalid", f"{subject}: {field}: {error.message}") from None
            return
        if words := builtin(obj):
            raise AnswerError(400, "BadRequest", f"strict decoding error: {words}")

    def _watch(self, http, kind, namespace, query):
        since = int(query.get("resourceVersion") or 0)
        http.send_response(200)
        http.send_header("Content-Type", "application/json")
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()

        def send(event, obj):
            line = json.dumps({"type": event, "object": obj}).encode() + b"\n"
            http.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

        end = datetime.now(timezone.utc) + timedelta(seconds=float(query.get("timeoutSeconds", 60)))
        if since < self.oldest:
            send("ERROR", AnswerError(410, "Expired", f"too old resource version: {since}").status)
            end = datetime.now(timezone.utc)
        while not self.stopping and datetime.now(timezone.utc) < end:
            with self.changed:
                self.changed.wait(0.05)
                fresh = [one for one in self.events if one[0] > since]
                since = self.revision
            for _, key, event, obj in fresh:
                if key[0] == kind[2] and namespace in ("", key[1]):
                    send(event, obj)
            if fresh:
                mark = {"kind": kind[3], "metadata": {"resourceVersion": str(since)}}
                send("BOOKMARK", mark)
        http.wfile.write(b"0\r\n\r\n")

    def kubeconfig(self, name="robot", **user):
        """Return cluster, user and context of a kubeconfig."""
        ca = base64.b64encode(self.authority.pem).decode()
        return {
            "clusters": [
                {"name": name, "cluster": {"server": self.url, "certificate-authority-data": ca}}
            ],
            "users": [{"name": name, "user": user or {"token": "admin-token"}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }


def write_kubeconfig(path, *parts):
    """Write parts as one file."""
    names = ("clusters", "users", "contexts")
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        **{n: [one for p in parts for one in p[n]] for n in names},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def closed(schema):
    """Return a structural schema as JSON Schema in which unknown fields are mistakes."""
    if not isinstance(schema, dict):
        return schema
    made = {
        name: closed(below) for name, below in schema.items() if name not in ("properties", "items")
    }
    if "properties" in schema:
        made["properties"] = {name: closed(below) for name, below in schema["properties"].items()}
        made["additionalProperties"] = False
    if "items" in schema:
        made["items"] = closed(schema["items"])
    return made


JUDGING = threading.Lock()  # the schemas have megabytes: judged once, not by each cluster at once


def builtin(obj):
    """Return what is wrong with an object of Kubernetes' own kinds; "" if nothing is."""
    meta = {n: v for n, v in obj["metadata"].items() if n in ("name", "namespace", "labels")}
    plain = {n: v for n, v in obj.items() if n != "status"}
    with JUDGING:
        return _builtin(json.dumps({**plain, "metadata": meta}, sort_keys=True))


@cache
def _builtin(content):
    obj = json.loads(content)
    try:
        kubernetes_validate.validate(obj, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    spec = obj.get("spec", {})
    wanted = (spec.get("selector") or {}).get("matchLabels", {}) if "template" in spec else {}
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if any(labels.get(name) != value for name, value in wanted.items()):
        return "`selector` does not match template `labels`"
    return ""
