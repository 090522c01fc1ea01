"""Two models or more, shown the same input: what they answer, how fast, how often they agree.

contenders.py  the models, as somebody names them
computing/     the process that asks them: the web's own loads no model and decodes no picture
process.py     that process, as the web sees it
uploads.py     what may be sent, judged before it is decoded
lineup.py      models side by side, and what was asked of them
board.py       the sums of all that was asked
data_sets.py   inputs of a folder, and batch.py, which asks about all of them
view.py        what the page shows
routes.py      the page, for the console and for `cloud-server compare`
versions.py    the versions of a server's store, and the comparisons that are open
pages.py       the console's pages of them
alone.py       the page without a fleet, on this machine alone
"""
