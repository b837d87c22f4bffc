"""Walks through the emulator with the vendor's SDKs: sdk.py HOST:PORT HISTORY_FILE.

Every answer is checked, and the first one that is not as the service documents it ends the walk with an error. The
emulator's history tells at the end that each SDK signed in the way it was meant to.
"""

import base64
import collections
import json
import logging
import sys

import requests
from alibabacloud_dcdn20180115 import models
from alibabacloud_dcdn20180115.client import Client
from alibabacloud_tea_openapi import exceptions, utils_models
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkdcdn.request.v20180115 import (
    CreateRoutineRequest,
    DeleteRoutineCodeRevisionRequest,
    DescribeRoutineCodeRevisionRequest,
    DescribeRoutineRequest,
    DescribeRoutineUserInfoRequest,
    PublishRoutineCodeRevisionRequest,
    UploadRoutineCodeRequest,
)
from darabonba.runtime import ExtendsParameters, RuntimeOptions

# The emulator's own key, which is public and opens nothing else.
KEY_ID = "emulator-key-id"
KEY_SECRET = "emulator-key-secret"

ODD = "dev *~ a+b/c=d & 版本"
LONG_AGO = "2020-01-01T00:00:00Z"
CAP = 10


class Refused(Exception):
    """An error that the service told, as the SDK understood it."""

    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


class Newer:
    """The present SDK. It can sign with either scheme."""

    def __init__(self, endpoint, algorithm, secret=KEY_SECRET, key_id=KEY_ID):
        self.algorithm = algorithm
        self.client = Client(
            utils_models.Config(
                access_key_id=key_id,
                access_key_secret=secret,
                endpoint=endpoint,
                protocol="http",
                signature_algorithm=algorithm,
            )
        )

    def ask(self, operation, extra=None, **arguments):
        """Calls an operation; `extra` are headers or parameters that stand above the SDK's own."""
        name = "".join("_" + c.lower() if c.isupper() else c for c in operation).strip("_")
        runtime = RuntimeOptions()
        if extra:
            where = "queries" if self.algorithm == "v2" else "headers"
            runtime.extends_parameters = ExtendsParameters(**{where: extra})
        call = getattr(self.client, name + "_with_options")
        try:
            if operation == "DescribeRoutineUserInfo":
                return call(runtime).body.to_map()
            return call(getattr(models, operation + "Request")(**arguments), runtime).body.to_map()
        except (exceptions.ClientException, exceptions.ServerException) as error:
            raise Refused(error.status_code, error.code, error.message) from error

    def replay(self, routine):
        """Makes one call twice with the same nonce."""
        name = "SignatureNonce" if self.algorithm == "v2" else "x-acs-signature-nonce"
        for _ in range(2):
            self.ask("DescribeRoutine", {name: f"nonce of {self.algorithm}"}, name=routine)

    def ask_late(self, routine):
        name = "Timestamp" if self.algorithm == "v2" else "x-acs-date"
        self.ask("DescribeRoutine", {name: LONG_AGO}, name=routine)

    def ask_by_get(self, routine):
        """The SDK sends everything by POST, unless told otherwise with the means it has for that."""
        params = utils_models.Params(
            action="DescribeRoutine",
            version="2018-01-15",
            protocol="HTTP",
            pathname="/",
            method="GET",
            auth_type="AK",
            style="RPC",
            req_body_type="formData",
            body_type="json",
        )
        request = utils_models.OpenApiRequest(query={"Name": routine, "Odd": ODD})
        return self.client.call_api(params, request, RuntimeOptions())["body"]


class Older:
    """The SDK before it, with RPC signatures."""

    REQUESTS = {
        "CreateRoutine": CreateRoutineRequest.CreateRoutineRequest,
        "DeleteRoutineCodeRevision": DeleteRoutineCodeRevisionRequest.DeleteRoutineCodeRevisionRequest,
        "DescribeRoutine": DescribeRoutineRequest.DescribeRoutineRequest,
        "DescribeRoutineCodeRevision": DescribeRoutineCodeRevisionRequest.DescribeRoutineCodeRevisionRequest,
        "DescribeRoutineUserInfo": DescribeRoutineUserInfoRequest.DescribeRoutineUserInfoRequest,
        "PublishRoutineCodeRevision": PublishRoutineCodeRevisionRequest.PublishRoutineCodeRevisionRequest,
        "UploadRoutineCode": UploadRoutineCodeRequest.UploadRoutineCodeRequest,
    }

    def __init__(self, endpoint, secret=KEY_SECRET, key_id=KEY_ID):
        self.host, port = endpoint.split(":")
        self.port = int(port)
        self.key = (key_id, secret)
        self.client = AcsClient(key_id, secret, "cn-hangzhou", auto_retry=False, port=self.port)

    def request(self, operation, arguments):
        request = self.REQUESTS[operation]()
        request.set_endpoint(self.host)
        request.set_protocol_type("http")
        for name, value in arguments.items():
            name = "".join(word.capitalize() for word in name.split("_"))
            value = json.dumps(value) if isinstance(value, list) else value
            getattr(request, "set_" + name)(value)
        return request

    def ask(self, operation, **arguments):
        return self.send(self.request(operation, arguments))

    def send(self, request):
        try:
            return json.loads(self.client.do_action_with_exception(request))
        except ServerException as error:
            raise Refused(error.http_status, error.error_code, error.message) from error

    def signed(self, routine):
        """The address and the body of a call as the SDK signs it."""
        request = self.request("DescribeRoutine", {"name": routine})
        request.set_accept_format("JSON")
        path = request.get_url("cn-hangzhou", *self.key)
        return f"http://{self.host}:{self.port}{path}", request.get_body_params()

    def replay(self, routine):
        """Sends one signed call twice; the SDK has no means to set the nonce."""
        url, body = self.signed(routine)
        for _ in range(2):
            answer = requests.post(url, data=body)
            if answer.status_code != 200:
                told = answer.json()
                raise Refused(answer.status_code, told["Code"], told["Message"])

    def ask_by_get(self, routine):
        request = self.request("DescribeRoutine", {"name": routine})
        # With GET the parameters go where the SDK puts those of other operations.
        request.set_body_params({})
        request.add_query_param("Name", routine)
        request.add_query_param("Odd", ODD)
        request.set_method("GET")
        return self.send(request)

    def ask_for_xml(self, routine):
        request = self.request("DescribeRoutine", {"name": routine})
        request.set_accept_format("XML")
        return self.client.do_action(request).decode()


def stay_on_this_machine(event, arguments):
    """Sees what is connected to, before it is. Addresses are used as they are, so no name is ever looked up."""
    if event == "socket.connect":
        address = arguments[1]
        if not (isinstance(address, tuple) and address[0] == "127.0.0.1"):
            raise SystemExit(f"DEVIATION: a connection to {address!r}")


def expect(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"DEVIATION: {what}: {found!r} and not {wanted!r}")


def expect_refused(what, status, codes, words, call, *arguments, **named):
    try:
        answer = call(*arguments, **named)
    except Refused as refused:
        expect(f"{what}: status", refused.status, status)
        expect(f"{what}: {refused.code} is one of {codes}", refused.code in codes, True)
        expect(f"{what}: {refused.message!r} says {words!r}", words in refused.message, True)
        return
    raise SystemExit(f"DEVIATION: {what} was not refused: {answer!r}")


def decoded(text):
    return json.loads(base64.b64decode(text))


def revisions(sdk, routine):
    content = sdk.ask("DescribeRoutine", name=routine)["Content"]
    return content, {entry["CodeRevision"]: entry for entry in content["CodeRevs"]}


def upload(sdk, routine, description, code):
    """Both steps of an upload: the form, and its post with the file last. Gives the number of the version."""
    content = sdk.ask("UploadRoutineCode", name=routine, code_description=description)["Content"]
    form = content["OssPostConfig"]
    fields = [(name, value) for name, value in form.items() if name != "Url"]
    # Those of `data` stand before those of `files`.
    file = {"file": ("code.js", code, "application/javascript")}
    answer = requests.post(form["Url"], data=fields, files=file)
    expect("the status of the post", answer.status_code, 200)
    expect("the answer of the callback", answer.json()["code"], 200)
    return content["CodeRevision"]


def walk(name, make):
    """Everything that can be done to a routine, and what is refused."""
    sdk = make()
    routine = f"sdk-{name}"
    code = "\ufeffaddEventListener('fetch', e => e.respondWith(new Response('版本')));\r\n\0--b".encode()

    created = sdk.ask("CreateRoutine", name=routine, description="made by an SDK")
    expect("a creation", created["Content"], {"Status": "OK"})
    content, listed = revisions(sdk, routine)
    expect("the description of a routine", decoded(content["Description"]), "made by an SDK")
    expect("the versions of a new routine", listed, {})
    routines = sdk.ask("DescribeRoutineUserInfo")["Content"]["Routines"]
    expect("the routine is listed", routine in [entry["RoutineName"] for entry in routines], True)

    first = upload(sdk, routine, ODD, code)
    _, listed = revisions(sdk, routine)
    expect("the versions after an upload", list(listed), [first])
    expect("the description of a version", decoded(listed[first]["CodeDescription"]), ODD)
    answer = sdk.ask("DescribeRoutineCodeRevision", name=routine, select_code_revision=first)
    expect("the code", base64.b64decode(answer["Content"]["ErCode"]), code)

    published = sdk.ask(
        "PublishRoutineCodeRevision", name=routine, select_code_revision=first, envs=["staging"]
    )
    expect("a publish", published["Content"], {"CodeRevision": first})
    content, _ = revisions(sdk, routine)
    expect("what is live in staging", content["EnvConf"]["staging"]["CodeRev"], first)

    made = [first] + [upload(sdk, routine, f"number {n}", b"// %d" % n) for n in range(1, CAP)]
    expect("the versions of a full routine", sorted(revisions(sdk, routine)[1]), sorted(made))
    asked = {"name": routine, "code_description": "one too many"}
    general = ["EdgeRoutine.GeneralError"]
    expect_refused("the eleventh version", 400, general, "upper limit", sdk.ask, "UploadRoutineCode", **asked)
    chosen = {"name": routine, "select_code_revision": made[1]}
    deleted = sdk.ask("DeleteRoutineCodeRevision", **chosen)
    expect("a deletion", deleted["Content"], {"Status": "OK"})
    expect("the versions after it", sorted(revisions(sdk, routine)[1]), sorted(made[:1] + made[2:]))
    upload(sdk, routine, "again", b"// again")

    # The older SDK turns the answer into this code where it signed the very text that the server says it would have.
    wrong = ["InvalidAccessKeySecret"] if isinstance(sdk, Older) else ["SignatureDoesNotMatch"]
    words = "AccessKeySecret is incorrect" if isinstance(sdk, Older) else "string to sign is:"
    other = make(secret="not the secret")
    expect_refused("a wrong secret", 400, wrong, words, other.ask, "DescribeRoutine", name=routine)
    other = make(key_id="nobody")
    unknown = ["InvalidAccessKeyId.NotFound"]
    expect_refused("an unknown key", 404, unknown, "", other.ask, "DescribeRoutine", name=routine)
    used = ["SignatureNonceUsed"]
    expect_refused("a replayed nonce", 400, used, "", sdk.replay, routine)
    if isinstance(sdk, Newer):
        expired = ["InvalidTimeStamp.Expired"]
        expect_refused("an old time stamp", 400, expired, "", sdk.ask_late, routine)
    else:
        xml = sdk.ask_for_xml(routine)
        expect("an answer in XML", "<DescribeRoutineResponse><" in xml, True)
    expect("a GET", len(sdk.ask_by_get(routine)["Content"]["CodeRevs"]), CAP)
    print(f"ok: {name}", flush=True)


def schemes(history):
    """How the calls about each routine were signed."""
    found = collections.defaultdict(set)
    with open(history, encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["op"] != "PostObject" and "routine" in record:
                found[record["routine"]].add(record.get("scheme"))
    return dict(found)


def main(endpoint, history):
    sys.addaudithook(stay_on_this_machine)
    # The older SDK logs what it also raises.
    logging.disable(logging.CRITICAL)
    walk("newer-acs3", lambda **key: Newer(endpoint, "ACS3-HMAC-SHA256", **key))
    walk("newer-rpc", lambda **key: Newer(endpoint, "v2", **key))
    walk("older-rpc", lambda **key: Older(endpoint, **key))
    wanted = {
        "sdk-newer-acs3": {"acs3-hmac-sha256"},
        "sdk-newer-rpc": {"hmac-sha1"},
        "sdk-older-rpc": {"hmac-sha1"},
    }
    expect("how calls were signed", schemes(history), wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
