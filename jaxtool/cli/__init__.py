"""What a person types: the flags of each command and its main; the work is done by the layers below.

Knows no loss and no network.
"""
