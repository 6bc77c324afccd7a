"""deploy/recipes.md, run as it is written: every command in one shell, every answer compared with what the page shows."""
import os
import re
import subprocess

from penstock import PATIENCE, ROOT

PAGE = ROOT / "deploy" / "recipes.md"
END = "---- end of command ----"


def commands(text):
    """(command, expected lines) of every console block; a command goes on until its here-document ends."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        inside = None
        for line in block.splitlines():
            if inside:
                found[-1][0].append(line)
                inside = None if line == inside else inside
            elif line.startswith("$ "):
                found.append(([line[2:]], []))
                document = re.search(r"<<'(\w+)'", line)
                inside = document and document[1]
            else:
                found[-1][1].append(line)
    return [("\n".join(command), expected) for command, expected in found]


def matches(expected, printed):
    """Where the page says `...` alone, any number of lines may stand; within a line, anything."""
    pattern = "\n".join(".*" if line == "..." else ".*".join(re.escape(part) for part in line.split("...")) for line in expected)
    return re.fullmatch(pattern, "\n".join(printed), re.S)


def test_every_recipe_does_what_the_page_says(start_daemon):
    text = PAGE.read_text()
    steps = commands(text)
    assert len(re.findall(r"^## \d+\. ", text, re.M)) >= 10 and len(steps) > 30
    daemon = start_daemon(env={"WEBHOOK_SECRET": "hush"})
    host, port = daemon.address
    script = "set -u\nn=0\n" + "".join(f"{command}\necho '{END}'\n" for command, _ in steps)
    shell = ["timeout", "--kill-after=5", str(PATIENCE * 2), "bash", "-c", script.replace("localhost:8420", f"{host}:{port}")]
    done = subprocess.run(shell, cwd=daemon.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    answers = done.stdout.split(END + "\n")[:-1]
    for (command, expected), printed in zip(steps, answers):
        assert matches(expected, printed.splitlines()), f"$ {command}\nprinted:\n{printed}\nthe page says:\n" + "\n".join(expected)
    assert len(answers) == len(steps), f"no answer in time to: {steps[len(answers)][0]}"
