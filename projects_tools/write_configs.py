"""Write what follows from tables: `python projects_tools/write_configs.py`.

Config files from the tables of variants, recipes, backbones and schedules (configs/<family>/*.py, configs/yaml/**),
costs (fcos_d2/zoo/costs.json), docs/zoo.md, and docs/training-options.md from the options' dataclasses.
"""

from pathlib import Path

from projects_tools import config_files, option_table, zoo_table

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write what is not up to date, and name it."""
    changed = [f"configs/{path}" for path in config_files.write(ROOT / "configs")]
    costs = zoo_table.count_costs()
    texts = {
        "fcos_d2/zoo/costs.json": zoo_table.costs_json(costs),
        "docs/zoo.md": zoo_table.markdown(costs),
        "docs/training-options.md": option_table.markdown(),
    }
    for name, text in texts.items():
        target = ROOT / name
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            changed.append(name)
    print("\n".join(f"wrote {name}" for name in changed) or "everything is up to date")


if __name__ == "__main__":
    main()
