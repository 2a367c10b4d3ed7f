"""`whimbrel doctor`: what is set and from where, and whether each part answers."""

import importlib.metadata
import platform

from whimbrel.cli import connect, settings, show
from whimbrel.cli.connect import Domain, Endpoint, Output, Project
from whimbrel.cli.show import Form
from whimbrel.errors import WhimbrelError


def doctor(
    output: Output = Form.TABLE,
    endpoint: Endpoint = None,
    project: Project = None,
    domain: Domain = None,
) -> None:
    """Check this installation and the endpoint.

    Example: whimbrel doctor
    """
    chosen = settings.load({"endpoint": endpoint, "project": project, "domain": domain})
    checks = [
        ("whimbrel", "ok", importlib.metadata.version("whimbrel")),
        ("python", "ok", platform.python_version()),
        ("endpoint", "ok", f"{chosen.endpoint} (from {chosen.source['endpoint']})"),
        ("project", "ok", f"{chosen.project} (from {chosen.source['project']})"),
        ("domain", "ok", f"{chosen.domain} (from {chosen.source['domain']})"),
    ]
    problem: WhimbrelError | None = None
    try:
        with connect.client(chosen.endpoint, chosen.project, chosen.domain) as client:
            clusters = client.clusters()
    except WhimbrelError as error:
        problem = error
        checks.append(("control plane", "fails", error.message))
    else:
        checks.append(("control plane", "ok", "answers"))
        if any(cluster.alive is None for cluster in clusters):
            checks.append(("router", "fails", "the control plane can't reach it"))
        for cluster in clusters:
            state = "ok" if cluster.alive else "fails"
            checks.append(
                (f"cluster {cluster.name}", state, f"{cluster.state} in {cluster.region}")
            )
            if cluster.ill:
                checks.append((f"compute {cluster.name}", "fails", cluster.ill))
            elif cluster.alive and cluster.offer is not None:
                checks.append((f"compute {cluster.name}", "ok", "its Kubernetes answers the agent"))
        if not clusters:
            checks.append(("clusters", "fails", "none is registered"))
    if output is Form.TABLE:
        show.table(("part", "state", "what"), checks)
    else:
        show.document([{"part": p, "state": s, "what": w} for p, s, w in checks], output)
    if problem is not None:
        raise problem
