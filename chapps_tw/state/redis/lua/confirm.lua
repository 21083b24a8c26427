-- The end of a script that only checks cached verdicts: see assumptions.lua.
return {1, -1}
