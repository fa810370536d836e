"""`sft curate`: data of any size into a new file, with a ledger of every row that is not in it.

Pass 1 reads the rows once, drops those that rules for single rows are against (`row_rules`) and
writes what later steps compare into a work folder (`features`, `store`); `steps` decide on those
arrays; pass 2 reads the rows again and writes those that stay (`write`). `run` puts it together.
"""
