"""Former place of `fcos_d2.zoo.recipes`, kept for code that imports from here."""

from .zoo.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe"]
