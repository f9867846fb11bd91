"""One module or folder for each notebook, of its name; :mod:`lib.chapters.shared` for several."""
