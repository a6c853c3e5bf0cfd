"""Execution of studies: folders of results, processes or a Dask cluster that do the tasks, progress, and pages."""
