"""Write configs/<family>/*.py and configs/yaml/** from the tables of variants, recipes, backbones and schedules."""

from pathlib import Path

from fcos_d2.yaml_twins import write

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1] / "configs"
    changed = write(root)
    print("\n".join(f"wrote {root.name}/{path}" for path in changed) or "all config files are up to date")
