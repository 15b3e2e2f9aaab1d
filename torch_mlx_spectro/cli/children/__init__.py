"""``run --children``: the Python processes that a program starts are patched, too.

They are reached by the environment, which processes hand on to those that they start:
``PYTHONPATH`` leads to ``site/sitecustomize.py``, a variable of ours says what is asked for. Each
process writes its counts into a folder, from which the first one gathers them when it ends.
"""
