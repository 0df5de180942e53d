"""The command-line program `llm`, configured by its extra-openai-models.yaml."""

import json
import os
import subprocess
from pathlib import Path

from checking import HELLO, KEY, MODEL, SAID, URL, equal, run

SETTINGS = f"""
- model_id: gateway
  model_name: "{MODEL}"
  api_base: "{URL}/v1"
  api_key_name: gateway
  supports_schema: true
  supports_tools: true
"""
TOOL = """
def weather(city: str) -> str:
    "The weather of a city."
    return "sunny in " + city
"""


def _llm(*arguments):
    done = subprocess.run(["llm", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def chat():
    equal(_llm("-m", "gateway", "--no-stream", HELLO), SAID)


def stream():
    equal(_llm("-m", "gateway", HELLO), SAID)


def conversation():
    equal(_llm("-m", "gateway", "-c", "and again"), "You said: and again")


def tools():
    arguments = ("-m", "gateway", "--functions", TOOL, "--td")
    done = subprocess.run(["llm", *arguments, "use the tool"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sunny in sample" in done.stderr, done.stderr


def structured():
    equal(json.loads(_llm("-m", "gateway", "--schema", "answer, confidence float", HELLO))["answer"], "yes")


folder = Path(os.environ["HOME"]) / "llm"
folder.mkdir()
os.environ["LLM_USER_PATH"] = str(folder)
(folder / "extra-openai-models.yaml").write_text(SETTINGS)
(folder / "keys.json").write_text(json.dumps({"gateway": KEY}))
run(chat, stream, conversation, tools, structured)
