"""What this machine says of its records in sum, and never of one of them.

words.py        terms and topics of a text
groups.py       which groups of records are large enough to be told
told.py         what was told before
own_profile.py  the reply to a request for a profile
"""
