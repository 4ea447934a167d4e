"""Checks of scripts/compose.yaml that need no container engine."""

import pathlib
import re
import subprocess
import sys

try:
    import yaml
except ImportError:
    sys.exit("compose.yaml was not looked at: python3-yaml is missing")

scripts = pathlib.Path(__file__).parent.parent
compose = yaml.safe_load((scripts / "compose.yaml").read_text())
services = compose["services"]
assert set(services) == {"server", "caddy", "backup"}, services.keys()
version = re.search(r'^version = "(.*)"', (scripts.parent / "Cargo.toml").read_text(), re.MULTILINE)[1]
images = [service["image"] for service in services.values()]
images += re.findall(r"^FROM (\S+)", (scripts / "Dockerfile").read_text(), re.MULTILINE)
for image in images:
    assert re.search(r":\d+\.\d+", image), f"{image} is not pinned"
assert f"configsync-server:{version}" in images
compiler = re.search(r'^channel = "(.*)"', (scripts.parent / "rust-toolchain.toml").read_text(), re.MULTILINE)[1]
assert any(image.startswith(f"rust:{compiler}-") for image in images), f"not the compiler {compiler}"
for name, service in services.items():
    assert service["restart"] == "unless-stopped", name
    for volume in service["volumes"]:
        assert volume.split(":")[0] in compose["volumes"], volume
assert services["server"]["healthcheck"]["test"] == ["CMD", "configsync-server", "healthcheck"]
assert "ports" not in services["server"], "only Caddy is reachable"
subnet = compose["networks"]["front"]["ipam"]["config"][0]["subnet"]
assert services["server"]["environment"]["CONFIGSYNC_TRUSTED_PROXY"] == subnet
assert "reverse_proxy server:8787" in compose["configs"]["caddyfile"]["content"]
# Compose turns $$ into $; what is left for the shell must be sound.
script = services["backup"]["command"][0].replace("$$", "\0")
assert "$" not in script, "a variable that Compose would fill in"
subprocess.run(["sh", "-n"], input=script.replace("\0", "$"), text=True, check=True)
