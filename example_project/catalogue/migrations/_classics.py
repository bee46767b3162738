"""The data of 0002: authors with their years, and books with year, genre and one sentence."""

CLASSICS = [
    ("Jane Austen", 1775, 1817, [
        ("Sense and Sensibility", 1811, "Romance", "Two sisters lose their home and learn when to hide a heart and when to show it."),
        ("Pride and Prejudice", 1813, "Romance", "A quick judgement at a country ball takes a whole novel to be taken back."),
        ("Mansfield Park", 1814, "Romance", "A poor cousin grows up in a grand house and sees more than she says."),
        ("Emma", 1815, "Romance", "A matchmaker understands every heart in the village except her own."),
        ("Northanger Abbey", 1817, "Romance", "A reader of gothic novels looks for a murder in a perfectly comfortable house."),
        ("Persuasion", 1817, "Romance", "Eight years after she was talked out of it, the captain comes back from sea."),
    ]),
    ("Charlotte Brontë", 1816, 1855, [
        ("Jane Eyre", 1847, "Romance", "A governess, a brooding master, and footsteps in the attic of a lonely house."),
        ("Shirley", 1849, "Novels", "Mill owners and machine breakers divide a Yorkshire valley, and an heiress takes sides."),
        ("Villette", 1853, "Novels", "An English teacher in a foreign school keeps her feelings locked away, almost."),
    ]),
    ("Emily Brontë", 1818, 1848, [
        ("Wuthering Heights", 1847, "Romance", "Love and revenge across two generations of a house on the moors."),
    ]),
    ("Anne Brontë", 1820, 1849, [
        ("Agnes Grey", 1847, "Novels", "A young governess discovers what rich families are like behind their doors."),
        ("The Tenant of Wildfell Hall", 1848, "Novels", "A woman with a secret moves into a ruined house and slams a door that all England heard."),
    ]),
    ("Charles Dickens", 1812, 1870, [
        ("Oliver Twist", 1838, "Novels", "A workhouse orphan asks for more and falls among the thieves of London."),
        ("Nicholas Nickleby", 1839, "Novels", "A young man with no money meets a cruel school and a company of actors."),
        ("A Christmas Carol", 1843, "Novels", "A miser, three ghosts, and one night to become another man."),
        ("David Copperfield", 1850, "Novels", "An orphan grows up to be a writer, and meets half of London on the way."),
        ("Bleak House", 1853, "Novels", "A lawsuit as thick as London fog swallows fortunes and families."),
        ("Hard Times", 1854, "Novels", "In a mill town of facts and smoke, a circus is the only place to breathe."),
        ("A Tale of Two Cities", 1859, "Novels", "London and Paris in the revolution, and a wasted life that finds its use."),
        ("Great Expectations", 1861, "Novels", "An orphan gets a fortune from a secret hand and learns what it cost."),
    ]),
    ("George Eliot", 1819, 1880, [
        ("Adam Bede", 1859, "Novels", "A carpenter loves a pretty dairymaid who is looking at the squire."),
        ("The Mill on the Floss", 1860, "Novels", "A clever girl and her stern brother grow up beside a river that remembers."),
        ("Silas Marner", 1861, "Novels", "A lonely weaver loses his gold and finds a child on his hearth."),
        ("Middlemarch", 1872, "Novels", "Marriages, ambitions and mistakes in a provincial town, watched with endless kindness."),
        ("Daniel Deronda", 1876, "Novels", "A gambling beauty and a young man in search of his people."),
    ]),
    ("Elizabeth Gaskell", 1810, 1865, [
        ("Cranford", 1853, "Novels", "A small town is governed entirely by ladies, with economy, gossip and good hearts."),
        ("North and South", 1855, "Romance", "A parson's daughter and a mill owner quarrel about masters, strikes and each other."),
    ]),
    ("Thomas Hardy", 1840, 1928, [
        ("Far from the Madding Crowd", 1874, "Romance", "A woman farmer, a shepherd, a soldier, and one careless valentine."),
        ("The Return of the Native", 1878, "Novels", "A heath at dusk, and a man who comes home from Paris to teach."),
        ("The Mayor of Casterbridge", 1886, "Novels", "A man sells his wife at a fair, rises to mayor, and is found by his past."),
        ("Tess of the d'Urbervilles", 1891, "Novels", "A farm girl with an old name pays for what others did."),
        ("Jude the Obscure", 1895, "Novels", "A stonemason dreams of a university that will not open its gates."),
    ]),
    ("Anthony Trollope", 1815, 1882, [
        ("The Warden", 1855, "Novels", "A gentle clergyman finds out that his comfortable post may be unjust."),
        ("Barchester Towers", 1857, "Novels", "A war for a cathedral town, fought with sermons and tea parties."),
        ("The Way We Live Now", 1875, "Novels", "A great swindler comes to London, and London is delighted."),
    ]),
    ("William Makepeace Thackeray", 1811, 1863, [
        ("Vanity Fair", 1848, "Novels", "A penniless adventuress climbs through society while armies meet at Waterloo."),
    ]),
    ("Wilkie Collins", 1824, 1889, [
        ("The Woman in White", 1860, "Mystery", "A pale woman on a midnight road, a stolen name, and a charming villain."),
        ("The Moonstone", 1868, "Mystery", "A cursed diamond vanishes from a country house, and everyone tells the story."),
    ]),
    ("Arthur Conan Doyle", 1859, 1930, [
        ("A Study in Scarlet", 1887, "Mystery", "A doctor needs lodgings and meets a detective, a body, and a word in blood."),
        ("The Sign of the Four", 1890, "Mystery", "A treasure from India, a wooden leg, and a chase down the Thames."),
        ("The Adventures of Sherlock Holmes", 1892, "Mystery", "Twelve cases for the detective of Baker Street, a scandal and a blue carbuncle among them."),
        ("The Memoirs of Sherlock Holmes", 1893, "Mystery", "More cases for the detective, and the last of them ends at a waterfall."),
        ("The Hound of the Baskervilles", 1902, "Mystery", "Footprints of a gigantic hound on the moor, and a detective who does not believe in ghosts."),
        ("The Lost World", 1912, "Adventure", "An expedition climbs a plateau in the jungle where dinosaurs still live."),
    ]),
    ("G. K. Chesterton", 1874, 1936, [
        ("The Man Who Was Thursday", 1908, "Mystery", "A poet detective joins a council of anarchists named after the days."),
        ("The Innocence of Father Brown", 1911, "Mystery", "A small priest with an umbrella knows more about crime than the police."),
    ]),
    ("Edgar Allan Poe", 1809, 1849, [
        ("The Fall of the House of Usher", 1839, "Gothic", "A visitor hears the walls of an old house, and what is behind them."),
        ("The Murders in the Rue Morgue", 1841, "Mystery", "The first detective of all reads a locked room in Paris."),
    ]),
    ("Mary Shelley", 1797, 1851, [
        ("Frankenstein", 1818, "Gothic", "A student makes a living creature and runs away from what he made."),
        ("The Last Man", 1826, "Science fiction", "A plague empties the world of the future, one country after another."),
    ]),
    ("Bram Stoker", 1847, 1912, [
        ("Dracula", 1897, "Gothic", "Letters and diaries follow a vampire from a castle to the fog of London."),
    ]),
    ("Robert Louis Stevenson", 1850, 1894, [
        ("Treasure Island", 1883, "Adventure", "A map, a mutiny, and a pirate with one leg and two faces."),
        ("Strange Case of Dr Jekyll and Mr Hyde", 1886, "Gothic", "A respected doctor shares a door in London with a murderer."),
        ("Kidnapped", 1886, "Adventure", "Cheated of his house and put on a ship, a boy crosses the Highlands with a rebel."),
    ]),
    ("Oscar Wilde", 1854, 1900, [
        ("The Picture of Dorian Gray", 1890, "Gothic", "A portrait grows old and wicked in the attic while its owner stays young."),
        ("The Importance of Being Earnest", 1895, "Plays", "Two gentlemen, one invented name, and a handbag left at a railway station."),
    ]),
    ("H. G. Wells", 1866, 1946, [
        ("The Time Machine", 1895, "Science fiction", "An inventor rides to the far future and finds what became of us."),
        ("The Island of Doctor Moreau", 1896, "Science fiction", "A shipwrecked man learns what the doctor makes out of animals."),
        ("The Invisible Man", 1897, "Science fiction", "A bandaged stranger takes a room at an inn, and it goes badly for the inn."),
        ("The War of the Worlds", 1898, "Science fiction", "Machines from Mars walk over England, and nothing we have can stop them."),
        ("The First Men in the Moon", 1901, "Science fiction", "Two men fall upward and meet those who live inside the moon."),
    ]),
    ("Jules Verne", 1828, 1905, [
        ("Journey to the Centre of the Earth", 1864, "Science fiction", "A professor follows a coded note down a volcano to an underground sea."),
        ("From the Earth to the Moon", 1865, "Science fiction", "A club of gunners builds a cannon large enough to shoot men to the moon."),
        ("Twenty Thousand Leagues Under the Seas", 1870, "Science fiction", "Prisoners of Captain Nemo see the whole sea from below."),
        ("Around the World in Eighty Days", 1873, "Adventure", "A punctual gentleman, a bet at his club, and every train and ship on the way."),
        ("The Mysterious Island", 1875, "Adventure", "Castaways build a world from nothing on an island that seems to help them."),
    ]),
    ("Alexandre Dumas", 1802, 1870, [
        ("The Three Musketeers", 1844, "Adventure", "A hot-headed Gascon comes to Paris and has three duels before lunch."),
        ("Twenty Years After", 1845, "Adventure", "The musketeers ride again, on different sides of a civil war."),
        ("The Count of Monte Cristo", 1846, "Adventure", "A prisoner escapes with a treasure and all the patience of revenge."),
    ]),
    ("Victor Hugo", 1802, 1885, [
        ("The Hunchback of Notre-Dame", 1831, "Novels", "A bell ringer, a dancer and an archdeacon under the towers of Paris."),
        ("Les Misérables", 1862, "Novels", "A loaf of bread, a policeman who never forgives, and barricades in Paris."),
    ]),
    ("Gustave Flaubert", 1821, 1880, [
        ("Madame Bovary", 1857, "Novels", "A doctor's wife wants life to be like the novels, on credit."),
        ("Sentimental Education", 1869, "Novels", "A young man in Paris misses love, fortune and a revolution."),
    ]),
    ("Émile Zola", 1840, 1902, [
        ("Thérèse Raquin", 1867, "Novels", "Two lovers drown a husband and cannot get rid of him."),
        ("Germinal", 1885, "Novels", "Hunger and a strike among the coal miners of the north."),
    ]),
    ("Honoré de Balzac", 1799, 1850, [
        ("Father Goriot", 1835, "Novels", "An old man in a Paris boarding house gives everything to ungrateful daughters."),
    ]),
    ("Stendhal", 1783, 1842, [
        ("The Red and the Black", 1830, "Novels", "A carpenter's son climbs by charm, memory and ambition, as far as the guillotine."),
        ("The Charterhouse of Parma", 1839, "Novels", "A young nobleman runs to Waterloo and into the intrigues of a small court."),
    ]),
    ("Voltaire", 1694, 1778, [
        ("Candide", 1759, "Ideas", "An optimist meets war, earthquake and shipwreck, and ends with a garden."),
    ]),
    ("Jean-Jacques Rousseau", 1712, 1778, [
        ("The Social Contract", 1762, "Ideas", "Why free people obey laws, and when they should not."),
    ]),
    ("Leo Tolstoy", 1828, 1910, [
        ("War and Peace", 1869, "Novels", "Five families live and love while Napoleon marches on Moscow."),
        ("Anna Karenina", 1878, "Novels", "A railway station, a ruinous love, and a landowner learning how to live."),
        ("The Death of Ivan Ilyich", 1886, "Novels", "A judge who did everything properly finds out that he is dying."),
    ]),
    ("Fyodor Dostoevsky", 1821, 1881, [
        ("Notes from Underground", 1864, "Ideas", "A bitter clerk argues with reason itself from under the floor."),
        ("Crime and Punishment", 1866, "Mystery", "A student murders by theory, and a patient detective waits for his conscience."),
        ("The Idiot", 1869, "Novels", "A good man comes to Petersburg, and it is a catastrophe."),
        ("Demons", 1872, "Novels", "Revolutionaries arrive in a provincial town and set it on fire."),
        ("The Brothers Karamazov", 1880, "Novels", "Three brothers, a murdered father, and the trial of everything."),
    ]),
    ("Ivan Turgenev", 1818, 1883, [
        ("Fathers and Sons", 1862, "Novels", "A young nihilist visits the countryside, dissects frogs, and falls in love."),
    ]),
    ("Nikolai Gogol", 1809, 1852, [
        ("Dead Souls", 1842, "Novels", "A polite stranger travels about Russia buying peasants who have died."),
    ]),
    ("Alexander Pushkin", 1799, 1837, [
        ("Eugene Onegin", 1833, "Poetry", "A bored dandy, a letter from a country girl, and a duel in the snow."),
    ]),
    ("Anton Chekhov", 1860, 1904, [
        ("The Seagull", 1896, "Plays", "Writers and actresses by a lake love the wrong people."),
        ("The Cherry Orchard", 1904, "Plays", "A family talks beautifully while its orchard is sold."),
    ]),
    ("Miguel de Cervantes", 1547, 1616, [
        ("Don Quixote", 1605, "Adventure", "A gentleman reads too many romances and rides out against the windmills."),
    ]),
    ("Johann Wolfgang von Goethe", 1749, 1832, [
        ("The Sorrows of Young Werther", 1774, "Romance", "Letters from a young man in love with somebody else's bride."),
        ("Faust", 1808, "Plays", "A scholar sells his soul to the devil for one perfect moment."),
    ]),
    ("Henrik Ibsen", 1828, 1906, [
        ("Peer Gynt", 1867, "Plays", "A liar and dreamer runs around the world, away from himself."),
        ("A Doll's House", 1879, "Plays", "A forged signature, a marriage that was a game, and a door that closes."),
    ]),
    ("William Shakespeare", 1564, 1616, [
        ("Romeo and Juliet", 1597, "Plays", "Two families at war in Verona, and two children in love."),
        ("A Midsummer Night's Dream", 1600, "Plays", "Lovers, fairies and weavers lose their way in a wood at night."),
        ("Hamlet", 1603, "Plays", "A ghost tells a prince about a murder, and the prince thinks."),
        ("Macbeth", 1623, "Plays", "Three witches make a promise to a soldier, and his wife makes sure."),
    ]),
    ("John Milton", 1608, 1674, [
        ("Paradise Lost", 1667, "Poetry", "The devil falls, a garden is lost, and the poetry never touches the ground."),
    ]),
    ("William Blake", 1757, 1827, [
        ("Songs of Innocence and of Experience", 1794, "Poetry", "Lambs, tigers and chimney sweepers, in poems that a child can learn."),
    ]),
    ("Charles Baudelaire", 1821, 1867, [
        ("The Flowers of Evil", 1857, "Poetry", "Paris, boredom, perfume and sin in perfect verses."),
    ]),
    ("Walt Whitman", 1819, 1892, [
        ("Leaves of Grass", 1855, "Poetry", "A poet sings himself, the grass, and everybody in America."),
    ]),
    ("Rabindranath Tagore", 1861, 1941, [
        ("Gitanjali", 1910, "Poetry", "Quiet songs to a god who is found among the poorest."),
    ]),
    ("Mark Twain", 1835, 1910, [
        ("The Adventures of Tom Sawyer", 1876, "Children", "A boy by the big river paints a fence, gets lost in a cave, and finds a treasure."),
        ("Adventures of Huckleberry Finn", 1884, "Adventure", "A boy and a runaway slave float down the big river on a raft."),
        ("A Connecticut Yankee in King Arthur's Court", 1889, "Science fiction", "An engineer wakes up among the knights and brings them progress."),
    ]),
    ("Herman Melville", 1819, 1891, [
        ("Moby-Dick", 1851, "Adventure", "A captain hunts one white whale over all the seas."),
        ("Bartleby, the Scrivener", 1853, "Novels", "A clerk on Wall Street would prefer not to."),
    ]),
    ("Nathaniel Hawthorne", 1804, 1864, [
        ("The Scarlet Letter", 1850, "Novels", "A woman wears her letter proudly in a town of secret sinners."),
        ("The House of the Seven Gables", 1851, "Gothic", "An old curse creaks in the rooms of a New England house."),
    ]),
    ("Washington Irving", 1783, 1859, [
        ("The Legend of Sleepy Hollow", 1820, "Gothic", "A schoolmaster rides home at night, and a horseman without a head rides behind."),
    ]),
    ("Henry David Thoreau", 1817, 1862, [
        ("Walden", 1854, "Ideas", "A man builds a hut by a pond to find out what he needs."),
    ]),
    ("Frederick Douglass", 1818, 1895, [
        ("Narrative of the Life of Frederick Douglass", 1845, "Ideas", "A man born a slave learns to read, fights back, and tells the truth about it."),
    ]),
    ("Louisa May Alcott", 1832, 1888, [
        ("Little Women", 1868, "Children", "Four sisters, little money, a mother, and a boy next door."),
    ]),
    ("Henry James", 1843, 1916, [
        ("The Portrait of a Lady", 1881, "Novels", "An American heiress in Europe is free to choose, and chooses wrong."),
        ("The Turn of the Screw", 1898, "Gothic", "A governess sees ghosts in a country house, or the children do."),
    ]),
    ("Edith Wharton", 1862, 1937, [
        ("The House of Mirth", 1905, "Novels", "A beauty in New York needs a rich husband and cannot quite bear to take one."),
        ("Ethan Frome", 1911, "Novels", "A winter, a farm, a sled, and three people who cannot leave."),
        ("The Age of Innocence", 1920, "Romance", "A young lawyer of old New York, his bride, and her scandalous cousin."),
    ]),
    ("Kate Chopin", 1850, 1904, [
        ("The Awakening", 1899, "Novels", "A wife on a summer island learns to swim and to want."),
    ]),
    ("Charlotte Perkins Gilman", 1860, 1935, [
        ("The Yellow Wallpaper", 1892, "Gothic", "A wife is told to rest in a room with a terrible pattern on its walls."),
        ("Herland", 1915, "Science fiction", "Three explorers find a country in which there are only women."),
    ]),
    ("Jack London", 1876, 1916, [
        ("The Call of the Wild", 1903, "Adventure", "A house dog is stolen for the sleds of the north and hears the wolves."),
        ("The Sea-Wolf", 1904, "Adventure", "A gentleman is picked up by a sealing ship and its brutal captain."),
        ("White Fang", 1906, "Adventure", "A wolf cub of the frozen north learns about fire, men and kindness."),
    ]),
    ("F. Scott Fitzgerald", 1896, 1940, [
        ("This Side of Paradise", 1920, "Novels", "A handsome student finds out that charm does not last."),
        ("The Great Gatsby", 1925, "Novels", "Parties, a green light over the water, and a man who made himself up."),
    ]),
    ("Rudyard Kipling", 1865, 1936, [
        ("The Jungle Book", 1894, "Children", "A boy raised by wolves learns the law of the jungle from a bear."),
        ("Kim", 1901, "Adventure", "An orphan of Lahore follows a holy man and plays the game of spies."),
    ]),
    ("Lewis Carroll", 1832, 1898, [
        ("Alice's Adventures in Wonderland", 1865, "Children", "A girl follows a white rabbit, and logic does not follow her."),
        ("Through the Looking-Glass", 1871, "Children", "A girl steps through a mirror into a game of chess."),
    ]),
    ("J. M. Barrie", 1860, 1937, [
        ("Peter and Wendy", 1911, "Children", "A boy who never grows up, pirates, fairies, and a crocodile with a clock."),
    ]),
    ("Kenneth Grahame", 1859, 1932, [
        ("The Wind in the Willows", 1908, "Children", "A mole, a rat, a river, and a toad with a motor car."),
    ]),
    ("Frances Hodgson Burnett", 1849, 1924, [
        ("A Little Princess", 1905, "Children", "A rich girl at school becomes a servant and stays a princess."),
        ("The Secret Garden", 1911, "Children", "A cross orphan finds a locked garden and a hidden cousin on the moor."),
    ]),
    ("L. Frank Baum", 1856, 1919, [
        ("The Wonderful Wizard of Oz", 1900, "Children", "A storm drops a girl and her dog in a land with a yellow road."),
    ]),
    ("Edith Nesbit", 1858, 1924, [
        ("Five Children and It", 1902, "Children", "A grumpy sand fairy grants one wish a day, and each goes wrong."),
        ("The Railway Children", 1906, "Children", "Three children without their father make friends with a railway."),
    ]),
    ("L. M. Montgomery", 1874, 1942, [
        ("Anne of Green Gables", 1908, "Children", "They asked for a boy, and got a talkative orphan with red hair."),
    ]),
    ("Johanna Spyri", 1827, 1901, [
        ("Heidi", 1881, "Children", "An orphan girl, a gruff grandfather, goats, and the mountains."),
    ]),
    ("Carlo Collodi", 1826, 1890, [
        ("The Adventures of Pinocchio", 1883, "Children", "A wooden puppet tells lies, runs from school, and wants to be a boy."),
    ]),
    ("Anna Sewell", 1820, 1878, [
        ("Black Beauty", 1877, "Children", "A horse tells the story of good masters and bad ones."),
    ]),
    ("Selma Lagerlöf", 1858, 1940, [
        ("Gösta Berling's Saga", 1891, "Novels", "A fallen priest and twelve cavaliers, with wolves and balls in the snow."),
        ("The Wonderful Adventures of Nils", 1906, "Children", "A naughty boy shrinks and flies over Sweden with the wild geese."),
    ]),
    ("Daniel Defoe", 1660, 1731, [
        ("Robinson Crusoe", 1719, "Adventure", "A shipwrecked man keeps his accounts, his goats and his faith on an island."),
        ("Moll Flanders", 1722, "Novels", "Born in prison, five times a wife, twelve years a thief, and not sorry enough."),
    ]),
    ("Jonathan Swift", 1667, 1745, [
        ("Gulliver's Travels", 1726, "Adventure", "A ship's doctor is a giant, a toy, and at last ashamed of people."),
    ]),
    ("Joseph Conrad", 1857, 1924, [
        ("Heart of Darkness", 1899, "Novels", "A steamer goes up a river to bring back a man named Kurtz."),
        ("Lord Jim", 1900, "Adventure", "An officer jumps from his ship and spends his life making up for it."),
        ("The Secret Agent", 1907, "Mystery", "A shopkeeper in Soho is ordered to blow up an observatory."),
    ]),
    ("Virginia Woolf", 1882, 1941, [
        ("Mrs Dalloway", 1925, "Novels", "A woman buys flowers for her party, and one day in London opens."),
        ("To the Lighthouse", 1927, "Novels", "A family puts off a trip to a lighthouse, and ten years pass."),
    ]),
    ("James Joyce", 1882, 1941, [
        ("Dubliners", 1914, "Novels", "Fifteen stories of people in Dublin who almost leave."),
        ("Ulysses", 1922, "Novels", "One day in Dublin with an advertising man, a student, and every style there is."),
    ]),
    ("Franz Kafka", 1883, 1924, [
        ("The Metamorphosis", 1915, "Gothic", "A salesman wakes up as a giant insect and worries about his train."),
        ("The Trial", 1925, "Novels", "A bank clerk is arrested one morning and never learns for what."),
    ]),
    ("Gaston Leroux", 1868, 1927, [
        ("The Mystery of the Yellow Room", 1908, "Mystery", "A reporter explains how a murderer left a locked room."),
        ("The Phantom of the Opera", 1910, "Gothic", "A voice behind the mirror teaches a young singer under the opera of Paris."),
    ]),
    ("Maurice Leblanc", 1864, 1941, [
        ("Arsène Lupin, Gentleman Burglar", 1907, "Mystery", "A thief with manners announces what he will steal, and steals it."),
    ]),
    ("Friedrich Nietzsche", 1844, 1900, [
        ("Thus Spoke Zarathustra", 1883, "Ideas", "A prophet comes down from his mountain to teach people to dance."),
        ("Beyond Good and Evil", 1886, "Ideas", "A philosopher takes a hammer to the prejudices of the others."),
    ]),
    ("John Stuart Mill", 1806, 1873, [
        ("On Liberty", 1859, "Ideas", "How far may society tell one person what to do? Not very."),
    ]),
    ("Mary Wollstonecraft", 1759, 1797, [
        ("A Vindication of the Rights of Woman", 1792, "Ideas", "Give girls the same education, and see."),
    ]),
    ("Charles Darwin", 1809, 1882, [
        ("The Voyage of the Beagle", 1839, "Ideas", "A young naturalist sails round the world and begins to wonder."),
        ("On the Origin of Species", 1859, "Ideas", "One long argument about pigeons, barnacles, and all of life."),
    ]),
    ("Michel de Montaigne", 1533, 1592, [
        ("Essays", 1580, "Ideas", "A man in a tower asks what he knows, and invents a kind of writing."),
    ]),
    ("Sheridan Le Fanu", 1814, 1873, [
        ("Uncle Silas", 1864, "Gothic", "An heiress is sent to live with her uncle, and somebody wants her dead."),
        ("Carmilla", 1872, "Gothic", "A beautiful guest at a lonely castle is a vampire, and gentle."),
    ]),
    ("Robert W. Chambers", 1865, 1933, [
        ("The King in Yellow", 1895, "Gothic", "Whoever reads the second act of the play goes mad."),
    ]),
    ("Horace Walpole", 1717, 1797, [
        ("The Castle of Otranto", 1764, "Gothic", "A giant helmet falls from the sky, and the gothic novel begins."),
    ]),
    ("Ann Radcliffe", 1764, 1823, [
        ("The Mysteries of Udolpho", 1794, "Gothic", "An orphan, a castle in the mountains, and something behind the black veil."),
    ]),
    ("H. Rider Haggard", 1856, 1925, [
        ("King Solomon's Mines", 1885, "Adventure", "An old map leads three men over a desert to diamonds."),
        ("She", 1887, "Adventure", "In a lost city rules a queen who has waited two thousand years."),
    ]),
    ("Baroness Orczy", 1865, 1947, [
        ("The Scarlet Pimpernel", 1905, "Adventure", "A foppish Englishman smuggles aristocrats away from the guillotine."),
    ]),
    ("John Buchan", 1875, 1940, [
        ("The Thirty-Nine Steps", 1915, "Adventure", "A bored man finds a body in his flat and runs for Scotland."),
    ]),
    ("Erskine Childers", 1870, 1922, [
        ("The Riddle of the Sands", 1903, "Mystery", "Two friends in a small yacht find a secret among the sandbanks."),
    ]),
    ("Anthony Hope", 1863, 1933, [
        ("The Prisoner of Zenda", 1894, "Adventure", "A tourist looks exactly like the king, who is in a dungeon."),
    ]),
    ("Edgar Rice Burroughs", 1875, 1950, [
        ("Tarzan of the Apes", 1914, "Adventure", "A lord's son is raised by apes in the jungle."),
        ("A Princess of Mars", 1917, "Science fiction", "A captain wakes up on Mars among green warriors and a princess."),
    ]),
    ("James Fenimore Cooper", 1789, 1851, [
        ("The Last of the Mohicans", 1826, "Adventure", "Scouts and soldiers chase through the forests of a colonial war."),
    ]),
    ("Walter Scott", 1771, 1832, [
        ("Waverley", 1814, "Adventure", "A dreamy officer rides into Scotland and into a rebellion."),
        ("Ivanhoe", 1819, "Adventure", "A disinherited knight, a tournament, and Robin Hood in the forest."),
    ]),
    ("Jerome K. Jerome", 1859, 1927, [
        ("Three Men in a Boat", 1889, "Novels", "Three hypochondriacs and a dog go up the Thames for their health."),
    ]),
    ("Karel Čapek", 1890, 1938, [
        ("R.U.R.", 1920, "Plays", "A factory makes artificial workers, and gives the world the word robot."),
    ]),
    ("Edwin A. Abbott", 1838, 1926, [
        ("Flatland", 1884, "Science fiction", "A square discovers that there is a third dimension."),
    ]),
    ("Edward Bellamy", 1850, 1898, [
        ("Looking Backward", 1888, "Science fiction", "A man from Boston sleeps until the year 2000 and finds it improved."),
    ]),
    ("Natsume Sōseki", 1867, 1916, [
        ("Botchan", 1906, "Novels", "A hot-headed teacher from Tokyo is sent to a school in the country."),
        ("Kokoro", 1914, "Novels", "A student, his melancholy teacher, and a letter that explains."),
    ]),
    ("Machado de Assis", 1839, 1908, [
        ("The Posthumous Memoirs of Brás Cubas", 1881, "Novels", "A dead man writes his life with irony and a few blank chapters."),
        ("Dom Casmurro", 1899, "Novels", "A jealous lawyer tells us about his wife, and we must judge him."),
    ]),
    ("Multatuli", 1820, 1887, [
        ("Max Havelaar", 1860, "Novels", "A coffee broker gets a parcel of papers that accuses an empire."),
    ]),
    ("George Bernard Shaw", 1856, 1950, [
        ("Pygmalion", 1913, "Plays", "A professor bets that he can teach a flower girl to speak like a duchess."),
    ]),
    ("Edmond Rostand", 1868, 1918, [
        ("Cyrano de Bergerac", 1897, "Plays", "A swordsman with a great nose writes another man's love letters."),
    ]),
]

READERS = (
    "Ada Alan Amara Ben Chioma Clara Daniel Edith Elif Farid Grace Hana Ines Ivan Jonas Kofi Leila "
    "Lukas Maeve Mei Mina Noor Oscar Petra Quinn Rosa Samir Sofia Tariq Thea Viktor Yuki Zofia"
).split()  # fmt: skip

OPINIONS = {
    5: ["I finished it at three in the morning and started again.", "The best book I read this year.",
        "My grandmother's favourite, and now mine.", "Every page has a sentence worth keeping."],
    4: ["Takes its time, and rewards it.", "Better than I remembered from school.",
        "A little long in the middle; the ending is worth it.", "Bought it for the cover, stayed for the people."],
    3: ["Good, though I had to look up a good many words.", "I liked half of it very much.",
        "A fine book for a long train journey.", "Not what I expected, which is not a complaint."],
    2: ["Everybody talks and nobody does anything.", "I admire it more than I enjoyed it."],
}  # fmt: skip

EXTRAS = [
    "The paper is lovely too.", "Arrived in two days, wrapped like a present.", "Lent it to a friend already.",
    "The introduction gives the ending away, read it last.", "I would read it aloud.", "", "", "",
]  # fmt: skip
