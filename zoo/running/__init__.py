"""Running studies: folders of results, processes or a cluster that do the tasks, progress, and pages."""
