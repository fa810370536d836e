"""`sft curate`: data of any size into a new file, with a ledger of every row that is not in it.

Pass 1 reads the rows once and writes what later steps compare into a work folder (`features`,
`feature_pass`, `store`); steps decide on those arrays (`near`, `openers`, `prompt_steps`), or on
the rows (`row_steps`, `corpus_checks`); pass 2 reads the rows again and writes those that stay
(`write`). `run` puts it together.
"""
