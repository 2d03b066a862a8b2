"""What lab keeps of its labs on disk: records, locks, journals, evidence."""
