-- The end of a script that only checks the version of the cached values: see version.lua.
return {1}
