"""Go on with a text, or answer an instruction: low-rank adapters of a causal language model.

language_model.py   what data mean: NumPy, and the library `tokenizers`
conversation.py     an instruction as numbers, by the tokenizer's files and its chat template
memory.py           how much memory a model takes
scoring.py          in PyTorch: what answers cost, and completions
peft_files.py       adapters as files that the library peft reads
torch_model.py      what computes, in PyTorch: a model of Hugging Face's layout, and its adapters
"""

from fleet_model.workloads.causal_lm.language_model import CausalLM

__all__ = ["CausalLM"]
