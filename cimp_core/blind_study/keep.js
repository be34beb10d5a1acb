
// What the browser keeps under a name, and this page as well, for a browser may refuse: from the start in some private
// modes, or later when it is full. `refused` is called then, and `works` is false.
class Kept {
  constructor(refused) {
    this.works = true;
    this.memory = {};
    this.refused = refused;
  }

  get(name) {
    const text = this.#try(() => localStorage.getItem(name));
    try {
      return JSON.parse(this.works ? text : this.memory[name] ?? null);
    } catch {
      return null; // not ours, or damaged
    }
  }

  set(name, value) {
    this.memory[name] = JSON.stringify(value);
    this.#try(() => localStorage.setItem(name, this.memory[name]));
  }

  // Of this tab only: a reload goes on by itself, while another rater on the same tablet begins at the start.
  getHere(name) {
    try {
      return sessionStorage.getItem(name);
    } catch {
      return null; // a reload asks for the code
    }
  }

  setHere(name, text) {
    try {
      sessionStorage.setItem(name, text);
    } catch {
      // as above
    }
  }

  #try(action) {
    try {
      return action();
    } catch {
      this.works = false;
      this.refused();
      return null;
    }
  }
}
