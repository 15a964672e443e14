"""The Kubernetes API, as far as the reconciler needs it: predictors, their pods, and what explains a pod."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from fabwafer.errors import FabwaferError
from fabwafer.models.predictor import DEPLOYMENT, MANAGER, ROLE_LABEL, Kind, Manifest, Role

TIMEOUT_SECONDS: Final = 5
"""For each try of a request, of which there are two; a pod that is asked to end is given 30 s."""
_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
_KUBECONFIG: Final = "KUBECONFIG"
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"


class ClusterError(FabwaferError):
    """The Kubernetes API does not answer, or refuses a request. The text says which, and its reason."""


def connect() -> client.ApiClient:
    """Return a client of the API: in a pod by its service account, else by the file of $KUBECONFIG.

    Raises:
        ClusterError: There is neither.
    """
    configuration = client.Configuration()
    try:
        if _IN_A_POD in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        elif file := os.environ.get(_KUBECONFIG):
            config.load_kube_config(config_file=file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            raise ClusterError(f"expected to run in a pod, or {_KUBECONFIG} to name the cluster")
    except ConfigException as error:
        raise ClusterError(f"the Kubernetes API cannot be used: {error}") from None
    configuration.retries = 1  # a connection that the server closed while nobody asked; pauses are the caller's
    return client.ApiClient(configuration)


class Cluster:
    """A namespace with predictors of one kind. Every method raises ClusterError when the API does not do it.

    Args:
        api: A client of the API.
        namespace: The namespace.
        kind: The kind of the predictors.
    """

    def __init__(self, api: client.ApiClient, namespace: str, kind: Kind) -> None:
        self.namespace, self.kind = namespace, kind
        # Any: all answers are taken as plain JSON, which one set of functions reads for both kinds.
        self._objects: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)

    def predictor(self, name: str) -> Manifest | None:
        """Return a predictor, or None where there is none of that name."""
        return self._get(self.kind, name)

    def deployment(self, predictor: str) -> Manifest | None:
        """Return the Deployment of a predictor, or None where there is none yet."""
        return self._get(DEPLOYMENT, self.kind.deployment.format(predictor))

    def create(self, predictor: Manifest) -> None:
        """Create a predictor."""
        with self._asking("create", predictor["metadata"]["name"]):
            self._objects.create_namespaced_custom_object(
                **self._of(self.kind), body=predictor, field_manager=MANAGER, _request_timeout=TIMEOUT_SECONDS
            )

    def patch(self, name: str, patch: Manifest | list[Manifest]) -> None:
        """Change a predictor by a JSON merge patch or, given a list, by a JSON patch."""
        with self._asking("patch", name):
            self._objects.patch_namespaced_custom_object(
                **self._of(self.kind),
                name=name,
                body=patch,
                field_manager=MANAGER,
                _content_type=_JSON_PATCH if isinstance(patch, list) else _MERGE_PATCH,
                _request_timeout=TIMEOUT_SECONDS,
            )

    def delete(self, name: str) -> None:
        """Delete a predictor with its pods; one that is gone is no error."""
        with self._asking("delete", name, missing_is_fine=True):
            self._objects.delete_namespaced_custom_object(
                **self._of(self.kind),
                name=name,
                propagation_policy="Background",
                _request_timeout=TIMEOUT_SECONDS,
            )

    def pods(self, role: Role) -> list[Manifest]:
        """Return the pods of a role, the newest first."""
        selector = f"{ROLE_LABEL}={role}"
        found = self._items("list pods of", role, self._core.list_namespaced_pod, label_selector=selector)
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)

    def events(self, pod: str) -> list[Manifest]:
        """Return the events of a pod."""
        selector = f"involvedObject.kind=Pod,involvedObject.name={pod}"
        return self._items("list events of", pod, self._core.list_namespaced_event, field_selector=selector)

    def last_line(self, pod: str, container: str) -> str:
        """Return the last line of a container's log; empty where there is none, or this user may not read it."""
        try:
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                tail_lines=1,
                limit_bytes=4096,
                _preload_content=False,
                _request_timeout=TIMEOUT_SECONDS,
            )
        except (ApiException, HTTPError):
            return ""
        return str(answer.data.decode(errors="replace")).strip()

    def _items(self, verb: str, name: str, request: Any, **selector: str) -> list[Manifest]:
        with self._asking(verb, name):
            answer = request(self.namespace, **selector, _preload_content=False, _request_timeout=TIMEOUT_SECONDS)
            found: list[Manifest] = json.loads(answer.data)["items"]
        return found

    def _get(self, kind: Kind, name: str) -> Manifest | None:
        with self._asking("get", name, missing_is_fine=True):
            found: Manifest = self._objects.get_namespaced_custom_object(
                **self._of(kind), name=name, _request_timeout=TIMEOUT_SECONDS
            )
            return found
        return None

    def _of(self, kind: Kind) -> dict[str, Any]:
        return {"group": kind.group, "version": kind.version, "plural": kind.plural, "namespace": self.namespace}

    @contextmanager
    def _asking(self, verb: str, name: str, *, missing_is_fine: bool = False) -> Iterator[None]:
        """Raise ClusterError for a request that fails."""
        try:
            yield
        except ApiException as error:
            # A missing object is described; of a kind that the API does not know there is a plain 404.
            if missing_is_fine and error.status == HTTPStatus.NOT_FOUND and _described(error):
                return
            raise ClusterError(
                f"the Kubernetes API refuses to {verb} {name} in the namespace {self.namespace}: {_message(error)}"
            ) from None
        except HTTPError as error:
            raise ClusterError(f"the Kubernetes API does not answer: {error}") from None


def _message(error: ApiException) -> str:
    return str(_described(error).get("message") or f"{error.status} {error.reason}: {str(error.body or '').strip()}")


def _described(error: ApiException) -> dict[str, Any]:
    try:
        described = json.loads(error.body or "")
    except ValueError:
        return {}
    return described if isinstance(described, dict) else {}
