"""A stand-in for Terraform's AWS provider that knows its schema and nothing else: plugin protocol 5, over gRPC.

Terraform starts it as it starts any provider. It serves the schema of the file SCHEMA names, and finds every configuration right that
has this schema: Terraform itself compares names, types, what is required and how often blocks stand. It can't plan or apply; tests put
`mock_provider` in its place for that, which asks it for the schema alone. TF_DISABLE_PLUGIN_TLS=1 must be set: it speaks no TLS.
"""

import json
import os
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

NESTING = {"single": 1, "list": 2, "set": 3}


# Protocol buffers, as much as is needed: fields in, bytes out.
def varint(number):
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def field(number, value):
    if isinstance(value, bool) or isinstance(value, int):
        return varint(number << 3) + varint(int(value)) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(schema):
    out = b""
    for name, attribute in schema["attributes"].items():
        out += field(
            2,
            field(1, name)
            + field(2, json.dumps(attribute["type"]))
            + field(4, attribute["required"])
            + field(5, attribute["optional"])
            + field(6, attribute["computed"]),
        )
    for name, nested in schema["blocks"].items():
        counts = field(3, NESTING[nested["nesting"]]) + field(4, nested["min"]) + field(5, nested["max"])
        out += field(3, field(1, name) + field(2, block(nested["block"])) + counts)
    return out


def answer_of_schema(schemas):
    def schema(of):
        return field(2, block(of))

    out = field(1, schema(schemas["provider"]))
    for type_, of in schemas.items():
        name = type_.removeprefix("data.")
        if type_ != "provider":
            out += field(3 if name != type_ else 2, field(1, name) + field(2, schema(of)))
    return out


def prepared(request):
    """PrepareProviderConfig: the configuration, field 1, goes back as it came, also field 1."""
    return request


def main():
    with open(os.environ["SCHEMA"], encoding="utf-8") as file:
        answers = {"GetSchema": answer_of_schema(json.load(file))}
    ended = threading.Event()

    class Calls(grpc.GenericRpcHandler):
        def service(self, call):
            name = call.method.rsplit("/", 1)[1]
            if name in ("StartStream", "StreamStdio"):
                # The plugin library's own: streams on which there is nothing to say.
                return grpc.stream_stream_rpc_method_handler(lambda requests, context: (_ for _ in ()))
            if name == "Shutdown":
                ended.set()
            if name == "PrepareProviderConfig":
                return grpc.unary_unary_rpc_method_handler(lambda request, context: prepared(request))
            if name in ("Shutdown", "Stop", "Configure", "ValidateResourceTypeConfig", "ValidateDataSourceConfig", *answers):
                return grpc.unary_unary_rpc_method_handler(lambda request, context: answers.get(name, b""))
            return None

    # Terraform takes at most 64 MiB.
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((Calls(),))
    address = os.path.join(tempfile.mkdtemp(prefix="provider-"), "socket")
    server.add_insecure_port(f"unix:{address}")
    server.start()
    print(f"1|5|unix|{address}|grpc", flush=True)
    ended.wait()
    server.stop(grace=1).wait()
    shutil.rmtree(os.path.dirname(address), ignore_errors=True)


if os.environ.get("TF_PLUGIN_MAGIC_COOKIE") is None:
    sys.exit("this is started by Terraform")
main()
