"""Where agent_graph meets the outside: LangChain components, model providers, trace and metric sinks, other storages.

Everything here is optional to the core, which imports it only inside functions. Import from the submodules.
"""
