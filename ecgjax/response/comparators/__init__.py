"""What a learned score has to beat: guideline rules, single measures, classical models, probes of embeddings."""
