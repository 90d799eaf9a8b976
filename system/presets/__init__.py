"""The configs that come with Isogon, one YAML file each."""
