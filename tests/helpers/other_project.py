"""The core rooms under another name, in a project with its own ``lib``, in another process."""

import subprocess
import sys
import sysconfig

SCHEDULERS = """
from {0}.schedulers import Scheduler
scheduler = Scheduler("entropy", "sharpness", beta=0.5)
schedules = [scheduler(torch.randn(8, 8), 0.1) for _ in range(3)]
results += [*schedules[-1], *scheduler.state_dict().values()]
"""
LOSSES = """
from {0}.losses import ScheduledContrastiveLoss
from {0}.schedulers import Scheduler
loss_of = ScheduledContrastiveLoss(Scheduler("variance", "direction", gamma=5.0))
image, text = torch.nn.functional.normalize(torch.randn(2, 8, 4), dim=-1).requires_grad_()
for _ in range(3):
    loss = loss_of(image, text, 10.0)
results += [loss, *torch.autograd.grad(loss, [image, text]), *loss_of.state_dict().values()]
"""
METRICS = """
from {0}.metrics import recall_at_k
measured = recall_at_k(torch.randn(8, 4), torch.randn(16, 4), list(range(8)) * 2)
results += map(torch.tensor, measured.as_dict().values())
"""
RIVALS = """
from {0}.models import ProjectionHead
from {0}.rivals import CosineTemperature, UncertaintyWeights
head = ProjectionHead(4, 3)
similarity = head(torch.randn(8, 4)) @ head(torch.randn(8, 4)).T
for rival in (CosineTemperature(0.1, 0.5, 4), UncertaintyWeights()):
    results += rival(similarity, 0.1)
"""
STEPS = {"schedulers": SCHEDULERS, "losses": LOSSES, "metrics": METRICS, "rivals": RIVALS}
BEGIN = "import torch\ntorch.manual_seed(0)\nresults = []\n"
# No .pth file of the environment is read, so an editable install of these sources is not seen.
ALONE = """
import site, sys
project, packages, added, checkout = sys.argv[1:]
sys.path[:0] = [project]
if added:
    site.addsitedir(added)
sys.path.append(packages)
{step}
import lib
assert lib.OWNER == "somebody else"
assert not [name for name in sys.modules if name.startswith("lib.")]
paths = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
loaded = [path for path in paths if path.startswith(checkout)]
assert not loaded, loaded
print([result.tolist() for result in results])
"""


def results(step, package="lib"):
    """Return the numbers of one of :data:`STEPS`, with the core imported from ``package``."""
    names = {}
    exec(BEGIN + step.format(package), names)
    return [result.tolist() for result in names["results"]]


def results_elsewhere(step, package, project, checkout, added=""):
    """Return the same numbers from another process, in which ``lib`` is that of ``project``.

    Args:
        step: One of :data:`STEPS`.
        package: The name of the core in that process.
        project: The project's folder, in which a ``lib`` is made.
        checkout: The folder of these sources' ``lib``; no module may be loaded from it.
        added: A folder of installed packages to put on the path.
    """
    (project / "lib").mkdir(parents=True, exist_ok=True)
    (project / "lib" / "__init__.py").write_text('OWNER = "somebody else"\n')
    script = ALONE.replace("{step}", BEGIN + step.format(package))
    words = map(str, [project, sysconfig.get_path("purelib"), added, f"{checkout}/"])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
