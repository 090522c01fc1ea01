"""Raw exports of platforms become records: JSON in, a table of texts with pictures out.

exports.py   the files of an export, and the objects in them that are posts
fields.py    what of a post is text, picture, time and author
times.py     a moment as platforms write it
collect.py   from exports to a folder
"""
