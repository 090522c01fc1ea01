"""Two models or more, shown the same input: what they answer, how fast, how often they agree.

contenders.py  the models, as somebody names them
__main__.py    the process that computes: the web's own loads no model and decodes no picture
process.py     that process, as the web sees it
uploads.py     what may be sent, judged before it is decoded
board.py       the sums of all that was asked
routes.py      the page, for the console and for `cloud-server compare`
versions.py    the versions of a server's store, and the comparisons that are open
pages.py       the console's pages of them
alone.py       the page without a fleet, on this machine alone
"""
