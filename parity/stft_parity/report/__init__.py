"""A report for people and for machines: terminal, JSON, JUnit XML and a page of HTML.

``summary`` needs rich, ``html`` jinja2; each is imported when it is called.
"""
