"""What the test files share: the cluster, a way to register tests, and a way to run them."""

import contextlib
import itertools
import json
import sys
import time
import traceback

import kubernetes
from kubernetes import client, config, dynamic

TESTS = []
_names = itertools.count(1)


def test(function):
    TESTS.append(function)
    return function


class Cluster:
    def __init__(self, kubeconfig):
        self.api = config.new_client_from_config(kubeconfig)
        self.dynamic = dynamic.DynamicClient(self.api)
        self.core = client.CoreV1Api(self.api)

    def raw(self, method, path, body=None, headers=None):
        """One request as it is; the status, the headers and the text of the answer."""
        headers = dict(headers or {})
        headers.setdefault("Accept", "application/json")
        auth = {}
        self.api.update_params_for_auth(auth, [], ["BearerToken"])
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, (str, bytes)) else json.dumps(body)
        answer = self.api.rest_client.pool_manager.request(
            method, self.api.configuration.host + path, body=body, headers={**auth, **headers}
        )
        return answer.status, answer.headers, answer.data.decode()

    def json(self, method, path, body=None, headers=None):
        status, _, text = self.raw(method, path, body, headers)
        return status, json.loads(text)

    @contextlib.contextmanager
    def namespace(self, labels=None):
        name = f"clients-{next(_names)}"
        self.core.create_namespace({"metadata": {"name": name, "labels": labels or {}}})
        try:
            until(lambda: self.core.list_namespaced_service_account(name).items)
            yield name
        finally:
            self.core.delete_namespace(name)


def until(condition, seconds=60):
    """Waits for something to become true, and gives it back."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def refused(status, reason=None, part=""):
    """What is inside must be refused, with this code and these words."""
    try:
        yield
    except (client.exceptions.ApiException, dynamic.exceptions.DynamicApiError) as error:
        body = error.body.decode() if isinstance(error.body, bytes) else error.body
        assert error.status == status, f"{error.status}: {body}"
        said = json.loads(body)
        assert reason in (None, said.get("reason")), body
        assert part in said["message"], body
        return
    raise AssertionError(f"it was not refused with {status}")


def main():
    """`file.py KUBECONFIG [TEST…]`: runs the tests, says how each went."""
    cluster = Cluster(sys.argv[1])
    wanted, failed = sys.argv[2:], []
    print(f"client {kubernetes.__version__}", flush=True)
    for function in TESTS:
        if wanted and function.__name__ not in wanted:
            continue
        try:
            function(cluster)
            print(f"ok {function.__name__}", flush=True)
        except Exception:
            failed.append(function.__name__)
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
