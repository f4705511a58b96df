"""What a person does with a registry, one class a topic; ``registry.registry`` joins them.

Numeric modules are imported where they are used: catalog commands must start in a blink.
"""
