"""Answer by department: one language model, and the adapter of whoever is asked.

service.py      the process with the port: no framework is loaded here
sources.py      which adapter each department should have: rounds of a rehearsal, or versions
verified.py     whether an adapter is whole, and of this base
table.py        which adapter each department has; swapped while requests are answered
engine.py       the process that computes, as the one with the port sees it
__main__.py     that process, which loads PyTorch
generation.py   the base, adapters beside its layers, groups of texts that go on token by token
bodies.py       what is asked, as OpenAI's clients write it
answers.py      what is answered, errors too
wording.py      numbers of tokens as a text that grows
routes.py       the paths
"""
