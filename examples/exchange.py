"""An eval whose sandbox is a compose file: an agent repairs a web service that it reaches over HTTP only.

Three services: `default`, in which the agent's commands run; `web`, whose program is in a volume that both have; and
`rates`, on an internal network that only `web` is on. Run it with `make demo`, or with a model of your own:
`inspect eval examples/exchange.py --model openai/gpt-5`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from inspect_ai import Task, task
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState
from inspect_ai.tool import Tool, tool
from inspect_ai.util import SandboxEnvironmentSpec, sandbox

PROJECT = Path(__file__).parent / "exchange"
# The images are made of this program alone, so that no registry is needed.
BUSYBOX = Path("/bin/busybox")
PLUGIN_DIRECTORIES = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")

PROGRAM = "/site/cgi-bin/convert"
RIGHT = (PROJECT / "convert").read_text(encoding="utf-8")
UNKNOWN = """\
if [ -z "$rate" ]; then
    printf 'Status: 404 Not Found\\r\\nContent-Type: text/plain\\r\\n\\r\\nunknown currency\\n'
    exit
fi
"""

PROMPT = """\
A web service converts amounts: `wget -q -O - 'http://web/cgi-bin/convert?amount=250&to=EUR'` from your shell. It has \
a fault with {name}. A user reports:

{report}

Its program is {program}, and what you change there is served at once. Repair it, and submit a sentence about the cause.
"""

# What the service must answer; no answer stands for an error, such as 404.
EXPECTED = {
    "amount=250&to=EUR": "230\n",
    "amount=1000000&to=JPY": "150000000\n",
    "amount=0&to=EUR": "0\n",
    "amount=250&to=XYZ": None,
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with the service, and what the scripted agent does about it."""

    name: str
    report: str
    query: str
    right: str
    wrong: str
    repair: str

    @property
    def program(self) -> str:
        """The service's program with the fault."""
        return RIGHT.replace(self.right, self.wrong)

    @property
    def solved(self) -> bool:
        """Whether the agent's repair is one."""
        return self.repair == self.right


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            name="small amounts",
            report="Amounts below 10000 become 0, and larger ones come out too small.",
            query="amount=250&to=EUR",
            right="amount * rate / 10000",
            wrong="amount / 10000 * rate",
            repair="amount * rate / 10000",
        ),
        # it says what it should, but with the status of a success
        Fault(
            name="unknown currencies",
            report="A currency that does not exist gives 0; it should be 404.",
            query="amount=250&to=XYZ",
            right=UNKNOWN,
            wrong="rate=${rate:-0}\n",
            repair="[ -n \"$rate\" ] || { printf 'Content-Type: text/plain\\r\\n\\r\\nunknown currency\\n'; exit; }\n",
        ),
    )
}


def missing() -> str | None:
    """Why this machine cannot run the services in local sandboxes, with what to install; nothing if it can."""
    if os.geteuid() != 0:
        return "it needs root, for a Docker Engine in a local sandbox"
    programs = {"dockerd": "docker.io", "docker": "docker.io (Debian 13: docker-cli)", "iptables": "iptables"}
    for program, package in programs.items():
        if shutil.which(program) is None:
            return f"it needs {program}: apt-get install {package}"
    plugins = [Path(directory, "docker/cli-plugins/docker-compose") for directory in PLUGIN_DIRECTORIES]
    if not any(plugin.exists() for plugin in plugins):
        return (
            "it needs Docker Compose 2: apt-get install docker-compose (Debian 13), or .ci/docker (Debian 12)"
        )
    if not BUSYBOX.exists():
        return f"it needs {BUSYBOX}: apt-get install busybox-static"
    return None


@task
def exchange(directory: Path | None = None) -> Task:
    """Repair one fault per sample; `directory` is one that `project` made."""
    return Task(
        dataset=[_sample(fault) for fault in FAULTS.values()],
        solver=react(tools=[shell()]),
        scorer=answers_are_right(),
        sandbox=SandboxEnvironmentSpec("daytona", str((directory or project()) / "compose.yaml")),
        message_limit=40,
    )


def project() -> Path:
    """The compose file and all that it builds from, with busybox, in a folder of their own."""
    directory = Path(mkdtemp(prefix="inspect-daytona-exchange-"))
    shutil.copytree(PROJECT, directory, dirs_exist_ok=True)
    shutil.copy(BUSYBOX, directory / "busybox")
    return directory


def _sample(fault: Fault) -> Sample:
    return Sample(
        id=fault.name,
        input=PROMPT.format(name=fault.name, report=fault.report, program=PROGRAM),
        target="the service answers as it should",
        files={PROGRAM: fault.program},
        setup=f"#!/bin/sh\nchmod +x {PROGRAM}\n",
    )


@tool
def shell() -> Tool:
    """Runs commands where the agent is; its image has no bash."""

    async def execute(command: str) -> str:
        """Run a command with sh.

        Args:
            command: The command.
        """
        result = await sandbox().exec(["sh", "-c", command], timeout=60)
        return result.stderr + result.stdout

    return execute


@scorer(metrics=[accuracy(), stderr()])
def answers_are_right() -> Scorer:
    """Asks the service from where the agent is."""

    async def score(state: TaskState, target: Target) -> Score:
        wrong = []
        for query, expected in EXPECTED.items():
            url = f"http://web/cgi-bin/convert?{query}"
            result = await sandbox().exec(["wget", "-q", "-O", "-", url], timeout=30)
            answer = result.stdout if result.success else None
            if answer != expected:
                wrong.append(f"{query}: expected {expected!r}, got {answer!r}")
        return Score(
            value=INCORRECT if wrong else CORRECT,
            answer=state.output.completion,
            explanation="\n".join(wrong),
        )

    return score
