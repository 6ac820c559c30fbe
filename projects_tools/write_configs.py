"""Write what follows from the tables of variants, recipes, backbones and schedules.

These are configs/<family>/*.py, configs/yaml/**, fcos_d2/zoo_costs.json and docs/zoo.md.
"""

from pathlib import Path

from projects_tools.config_files import write
from projects_tools.zoo_table import costs_json, count_costs, markdown

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    changed = [f"configs/{path}" for path in write(root / "configs")]
    costs = count_costs()
    for path, text in (("fcos_d2/zoo_costs.json", costs_json(costs)), ("docs/zoo.md", markdown(costs))):
        target = root / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            changed.append(path)
    print("\n".join(f"wrote {path}" for path in changed) or "everything is up to date")
