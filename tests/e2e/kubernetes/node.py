"""A node: a host with its own containerd and kubelet, and whatever its pods run.

Used by cluster.py; faults.py stops and starts its two parts. Its pods get addresses of their own
and reach everything on the bridge through the node's address.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.kubernetes import cgroups, disks, network, parts
from tests.e2e.kubernetes.image import PAUSE, TAG, Images
from tests.e2e.kubernetes.network import Host, run
from tests.e2e.kubernetes.state import CNI_PLUGINS, until

SERVED = ("containerd", "kubelet")


@dataclass(frozen=True, slots=True)
class Node:
    host: Host
    folder: Path
    binaries: Path

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def disk(self) -> Path:
        return disks.FOLDER / "nodes" / self.host.namespace

    def prepare(self, images: Images, prototype: Path) -> None:
        """All that needs no API server: the host, containerd and the images."""
        self.folder.mkdir(parents=True)
        network.create(self.host)
        cgroups.create(self.host.namespace)
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-bridge.conflist").write_text(json.dumps(self._pod_network()))
        disks.copy(prototype, self.disk)
        (self.folder / "containerd.toml").write_text(self._containerd())
        config = ("containerd", "--config", str(self.folder / "containerd.toml"))
        parts.start("containerd", self.host, self.folder, *config)
        self.await_containerd()
        self.ctr("images", "import", str(images.task))
        self.ctr("images", "tag", TAG, images.name)

    def join(self, kubeconfig: Path) -> None:
        config = self.folder / "kubelet.yaml"
        config.write_text(json.dumps(self._kubelet()))
        cluster, zone = self.host.cluster, self.name
        parts.start(
            "kubelet", self.host, self.folder,
            str(self.binaries / "kubelet"), "--config", str(config),
            "--kubeconfig", str(kubeconfig), "--hostname-override", self.name,
            "--node-ip", self.host.address, "--root-dir", str(self.folder / "kubelet"),
            "--cert-dir", str(self.folder / "kubelet-pki"), "--node-labels",
            f"topology.kubernetes.io/region={cluster},topology.kubernetes.io/zone={zone}",
        )  # fmt: skip

    def ctr(self, *command: str) -> str:
        return run("ctr", "--address", str(self.socket), "--namespace", "k8s.io", *command)

    def await_containerd(self) -> None:
        def answers() -> bool:
            try:
                return bool(self.ctr("version"))
            except RuntimeError:
                return False

        until(f"containerd of {self.name} answers", answers)

    def kill(self) -> None:
        """SIGKILL to the kubelet, containerd, shims and pods, as when the machine dies."""
        parts.kill(network.processes(self.host) | cgroups.processes(self.host.namespace))

    def restart(self) -> None:
        """After `kill`: as when the machine has booted. Its pods do not run any more."""
        parts.again("containerd", self.folder)
        self.await_containerd()
        parts.again("kubelet", self.folder)

    def remove(self) -> None:
        """Every trace of it outside its folder, however it ended."""
        self.kill()
        for address in self.folder.glob("containerd-state/**/address"):  # of a shim's socket
            Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
        parts.unmount(self.folder)
        shutil.rmtree(self.disk, ignore_errors=True)
        network.remove(self.host)
        cgroups.remove(self.host.namespace)
        for left in Path("/var/lib/cni/results").glob(f"{self.host.namespace}-*"):
            left.unlink(missing_ok=True)
        logs = Path("/var/log/containers")
        for link in logs.iterdir() if logs.exists() else ():
            if link.is_symlink() and link.readlink().is_relative_to(self.folder):
                link.unlink(missing_ok=True)

    def _containerd(self) -> str:
        plugins = next(folder for folder in CNI_PLUGINS if (folder / "bridge").exists())
        folder = self.folder
        return f"""
version = 2
root = "{self.disk}"
state = "{folder}/containerd-state"
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{self.socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{folder}/runc"
"""

    def _pod_network(self) -> dict[str, object]:
        addresses = {
            "type": "host-local",
            "dataDir": str(self.folder / "ipam"),
            "ranges": [[{"subnet": self.host.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": True,
                  "ipam": addresses}  # fmt: skip
        return {"cniVersion": "0.4.0", "name": self.host.namespace, "plugins": [bridge]}

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.host.namespace}",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "failCgroupV1": False,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "readOnlyPort": 0,
            "maxPods": 250,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "",
            "serializeImagePulls": False,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "nodeStatusUpdateFrequency": "2s",
            "syncFrequency": "2s",
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "podLogsDir": str(self.folder / "pod-logs"),
        }
