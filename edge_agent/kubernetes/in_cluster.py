"""How a pod reaches the API of its own cluster."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from fleet_model.errors import SettingsError
from fleet_model.kubernetes.connection import Connection, Patience, TokenFileCredential

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"


def in_cluster(
    account: Path = ACCOUNT, environment: Mapping[str, str] = os.environ
) -> tuple[Connection, str]:
    """Return the connection, and the namespace of this pod.

    Args:
        account: folder of the service account, with token, ca.crt and namespace.
        environment: with the API's address.

    Raises:
        SettingsError: this is no pod, or it has no service account.
    """
    host, port = environment.get(HOST, ""), environment.get(PORT, "")
    if not host or not port:
        raise SettingsError(
            f"{HOST} and {PORT} are not set: the controller runs in a pod; deploy/kubernetes has it"
        )
    try:
        namespace = (account / "namespace").read_text().strip()
        tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except ssl.SSLError:
        raise SettingsError(f"{account / 'ca.crt'}: is no certificate in PEM") from None
    except OSError as error:
        raise SettingsError(
            f"{account}: {error.strerror}; the pod needs a service account, see deploy/kubernetes"
        ) from None
    host = f"[{host}]" if ":" in host else host
    connection = Connection(
        name="cluster",
        server=f"https://{host}:{port}",
        tls=tls,
        credential=TokenFileCredential(account / "token"),
        patience=Patience(connect_s=5.0),
    )
    return connection, namespace
