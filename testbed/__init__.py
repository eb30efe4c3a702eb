"""The hosts that the demo and the Molecule scenarios run on: Debian with systemd and SSH, in containers or a VM.

An Ansible inventory is the description of a fleet; ``python -m testbed up INVENTORY`` makes it real.
"""
