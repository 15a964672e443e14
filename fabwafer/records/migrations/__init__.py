"""The steps that make the tables of the records, one file each; run by `fabwafer.records.migrate`."""
