"""A recorder of what the package does, seen from outside, so that a change of its inside can be shown to lose nothing.

Left out of a record, since it differs from run to run: seconds, speeds and MFU; the scratch folder's path; the fingerprints of
files in shard manifests (their path and time of change); ids and `created` in the server's answers. Prose (messages, tables,
help, model cards, modelling code) is compared apart. Log-probabilities may differ in their last bits: these depend on where
buffers lie in memory. Everything else is equal in two runs of the same code, whatever else the machine does.
"""
